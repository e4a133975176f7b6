"""The file that keeps every run, in a folder that an interrupted benchmark goes on with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import Any

from vistrim._utils.store import Store
from vistrim.benchmark.results import Cost, Run
from vistrim.errors import ResumeError

RUNS = "runs.jsonl"
"""Name of the file in its folder."""


class RunFile(Store["Cost | list[Run]"]):
    """What each method costs, and the runs of each complete round: one JSON line each.

    Methods are only compared within a round, while the machine is the same for all of them, so that a round that was
    interrupted is made again.

    Parameters
    ----------
    path : Path or None
        None keeps the runs in memory only.
    settings : mapping
        What all runs of the file must share, as plain Python objects.
    labels : sequence of str
        Of the methods that run in each round, the untouched model's among them.

    Attributes
    ----------
    runs : list of Run
        In order, those of a round that is not complete yet included.
    costs : dict of str to Cost
        By label, as far as they are known.

    Raises
    ------
    ResumeError
        See `vistrim._utils.store.Store`.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], labels: Sequence[str]) -> None:
        super().__init__(path, settings, ("kind", "of"), _decoded)
        self._labels = labels
        self.runs = [run for found in self.rows.values() if isinstance(found, list) for run in found]
        self.costs: dict[str, Cost] = {key[1]: found for key, found in self.rows.items() if isinstance(found, Cost)}

        if self.runs and set(labels) - self.costs.keys():
            raise ResumeError(f"{path} lacks costs of methods that it has runs of: give another --out, or delete it")

    @property
    def rounds(self) -> int:
        """Complete rounds."""
        return len(complete_rounds(self.runs, self._labels))

    def missing(self, repeat: int) -> list[int]:
        """Numbers of the rounds that are missing until there are so many."""
        there = {run.round for run in self.runs}
        return list(islice((number for number in count() if number not in there), max(0, repeat - self.rounds)))

    def append(self, run: Run) -> None:
        """Add a run; once this returns for the last run of a round, a kill no longer loses the round."""
        self.runs.append(run)
        current = [one for one in self.runs if one.round == run.round]
        if len(current) == len(self._labels):
            self.put([{"kind": "round", "of": run.round, "runs": [asdict(one) for one in current]}])

    def note_cost(self, label: str, cost: Cost) -> None:
        """Note what a method costs, once."""
        if label not in self.costs:
            self.costs[label] = cost
            self.put([{"kind": "cost", "of": label, "cost": asdict(cost)}])


def complete_rounds(runs: Iterable[Run], labels: Iterable[str]) -> list[dict[str, Run]]:
    """Sort runs into rounds, in order, each by label; rounds in which a label is missing are left out."""
    rounds: dict[int, dict[str, Run]] = {}
    for run in runs:
        rounds.setdefault(run.round, {})[run.method] = run
    needed = set(labels)
    return [one for one in rounds.values() if needed <= one.keys()]


def _decoded(row: dict[str, Any]) -> Cost | list[Run]:
    return Cost(**row["cost"]) if row["kind"] == "cost" else [Run(**run) for run in row["runs"]]
