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

    def table(self) -> Table:
        """The results as a table."""
        return Table(self.title, COLUMNS, [self._line(entry) for entry in self.entries])

    def untouched(self, model: str) -> Entry | None:
        """The untouched result of a model, if there is one."""
        return next((e for e in self.entries if e.model == model and e.method == UNTOUCHED), None)

    def _line(self, entry: Entry) -> tuple[str, ...]:
        untouched = self.untouched(entry.model)
        base = untouched.score if untouched is not None and untouched.items == entry.items else None
        retained = entry.score / base if entry.score is not None and base else None
        return (
            entry.method,
            entry.budget or "",
            entry.model,
            _score(entry.score),
            _percent(retained),
            "" if entry.tokens is None else f"{entry.tokens:.1f}",
            _percent(entry.flops),
            _percent(entry.kv),
            str(entry.items),
            str(entry.errors),
            f"{entry.versions.get('vistrim', '')} {entry.commit or ''}".strip(),
        )


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


def _score(score: float | None) -> str:
    # Some metrics, such as that of MME, are no shares.
    return f"{score:.1f}" if score is not None and score > 1 else _percent(score)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
