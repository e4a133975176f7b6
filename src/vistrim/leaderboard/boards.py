"""Results sorted into boards: one per protocol."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.tables import Table
from vistrim.evaluation.entries import Entry

COLUMNS = ("method", "budget", "model", "score", "retained", "tokens", "FLOPs", "KV mean", "items", "errors", "version")


@dataclass(frozen=True)
class Board:
    """Results of one protocol.

    Attributes
    ----------
    protocol : dict
        Everything that the results share.
    entries : list of Entry
        By model, then from the best score to the worst.
    """

    protocol: dict[str, Any]
    entries: list[Entry]

    @property
    def title(self) -> str:
        """Tool and task."""
        return ": ".join(str(self.protocol[key]) for key in ("tool", "task") if self.protocol.get(key))

    @property
    def details(self) -> str:
        """The rest of the protocol, in one line."""
        rest = {key: value for key, value in self.protocol.items() if key not in ("tool", "task")}
        return ", ".join(f"{key} {_text(value)}" for key, value in rest.items() if value is not None)

    @property
    def scores_are_shares(self) -> bool:
        """Whether all scores are from 0 to 1. Some metrics, such as that of MME, are no shares."""
        return all(entry.score is None or 0 <= entry.score <= 1 for entry in self.entries)

    def table(self) -> Table:
        """The results as a table."""
        return Table(self.title, COLUMNS, [self._line(entry) for entry in self.entries])

    def untouched(self, entry: Entry) -> Entry | None:
        """The untouched result of the same model over as many items, of the same versions if there is one."""
        own = (entry.versions, entry.commit)
        found = [e for e in self.entries if (e.method, e.model, e.items) == (UNTOUCHED, entry.model, entry.items)]
        return min(found, key=lambda other: (other.versions, other.commit) != own, default=None)

    def _line(self, entry: Entry) -> tuple[str, ...]:
        untouched = self.untouched(entry)
        base = None if untouched is None else untouched.score
        retained = entry.score / base if entry.score is not None and base else None
        return (
            entry.method,
            entry.budget or "",
            entry.model,
            self._score(entry.score),
            _percent(retained),
            "" if entry.tokens is None else f"{entry.tokens:.1f}",
            _percent(entry.flops),
            _percent(entry.kv),
            str(entry.items),
            str(entry.errors),
            f"{entry.versions.get('vistrim', '')} {entry.commit or ''}".strip(),
        )

    def _score(self, score: float | None) -> str:
        return _percent(score) if score is None or self.scores_are_shares else f"{score:.1f}"


def boards_of(entries: Sequence[Entry]) -> list[Board]:
    """Sort results by protocol; of the same method in the same versions, the last one counts."""
    boards: dict[str, dict[tuple[Any, ...], Entry]] = {}
    for entry in entries:
        key = json.dumps(entry.protocol, sort_keys=True)
        same = (entry.model, entry.method, entry.budget, tuple(sorted(entry.versions.items())), entry.commit)
        boards.setdefault(key, {})[same] = entry
    return [Board(json.loads(key), sorted(found.values(), key=_order)) for key, found in sorted(boards.items())]


def _order(entry: Entry) -> tuple[Any, ...]:
    score = -1.0 if entry.score is None else entry.score
    return entry.model, entry.method != UNTOUCHED, -score, entry.method


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
