"""The file that keeps every run, in a folder that an interrupted benchmark goes on with."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vistrim._utils.files import (
    append_lines,
    claim_folder,
    damaged_line,
    read_lines,
    read_object,
    replace_lines,
    write_whole,
)
from vistrim.benchmark.results import Cost, Run
from vistrim.errors import ResumeError

RUNS = "runs.jsonl"
"""Name of the file in its folder."""


class RunFile:
    """The runs of a benchmark, one JSON line each, and what each method costs.

    A round that was interrupted is taken out of the file: methods are only compared within a round, while the machine
    is the same for all of them.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    settings : mapping
        What all runs of the folder must share, as plain Python objects.
    labels : sequence of str
        Of the methods that run in each round, the untouched model's among them.

    Attributes
    ----------
    runs : list of Run
        In order.
    costs : dict of str to Cost
        By label, as far as they are known.

    Raises
    ------
    ResumeError
        If the folder belongs to other settings (says which), or something in it is damaged.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], labels: Sequence[str]) -> None:
        self._path, self._costs_path, self._labels = folder / RUNS, folder / "costs.json", labels
        claim_folder(self._path, settings)
        found = self._read_runs()
        self.runs = [run for one in complete_rounds(found, labels) for run in one.values()]
        if self.runs != found:
            replace_lines(self._path, map(asdict, self.runs))
        self.costs = self._read_costs()
        if self.runs and set(labels) - self.costs.keys():
            raise ResumeError(f"{folder} holds runs.jsonl without all costs: give another folder, or delete this one")

    @property
    def rounds(self) -> int:
        """Complete rounds."""
        return len(complete_rounds(self.runs, self._labels))

    @property
    def next_round(self) -> int:
        """Number of the round that comes next."""
        return 1 + max((run.round for run in self.runs), default=-1)

    def append(self, run: Run) -> None:
        """Add a run; once this returns, a kill no longer loses it."""
        append_lines(self._path, [asdict(run)])
        self.runs.append(run)

    def note_cost(self, label: str, cost: Cost) -> None:
        """Note what a method costs, once."""
        if label not in self.costs:
            self.costs[label] = cost
            values = {label: asdict(cost) for label, cost in self.costs.items()}
            write_whole(self._costs_path, json.dumps(values, indent=2) + "\n")

    def _read_runs(self) -> list[Run]:
        runs = []
        for number, values in read_lines(self._path):
            try:
                runs.append(Run(**values))
            except TypeError as error:
                raise damaged_line(self._path, number) from error
        return runs

    def _read_costs(self) -> dict[str, Cost]:
        if not self._costs_path.exists():
            return {}
        try:
            return {label: Cost(**values) for label, values in read_object(self._costs_path).items()}
        except TypeError as error:
            raise ResumeError(f"{self._costs_path} is damaged: give another folder, or delete this one") from error


def complete_rounds(runs: Iterable[Run], labels: Iterable[str]) -> list[dict[str, Run]]:
    """Sort runs into rounds, in order, each by label; rounds in which a label is missing are left out."""
    rounds: dict[int, dict[str, Run]] = {}
    for run in runs:
        rounds.setdefault(run.round, {})[run.method] = run
    needed = set(labels)
    return [one for one in rounds.values() if needed <= one.keys()]
