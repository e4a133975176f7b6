"""Performance of keep rates; every evaluation is saved in a file, from which an interrupted search resumes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal, get_args

from vistrim._utils.store import Store
from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import Item
from vistrim.evaluation.records import Answer
from vistrim.evaluation.runner import batches
from vistrim.methods import Method
from vistrim.methods.base.keep_rates import KeepRates, Rows

Objective = Literal["accuracy", "agreement"]
"""accuracy: mean score of the answers; agreement: share of answers that equal the untouched model's, word for word.
Both are means over tasks, so that all tasks have the same weight."""


def check_objective(objective: str, items: Sequence[Item]) -> None:
    """Refuse an unknown objective, or one that the items do not support.

    Raises
    ------
    ValueError
        If the objective is unknown, there is no item, or the objective needs a correct answer that is missing.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"objective={objective!r}: must be {' or '.join(get_args(Objective))}")
    if not items:
        raise ValueError("there are no questions to calibrate on: give one or more")
    missing = [item.id for item in items if not item.answer.strip()]
    if objective == "accuracy" and missing:
        raise ValueError(
            f"{len(missing)} questions have no correct answer (first {missing[0]}): add it, or use the objective "
            "agreement, which needs none"
        )


def performance(objective: Objective, items: Sequence[Item], given: Sequence[str], untouched: Sequence[str]) -> float:
    """Performance in [0, 1] of the answers ``given``, with those of the untouched model for comparison."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for item, text, before in zip(items, given, untouched, strict=True):
        value = item.score(text) if objective == "accuracy" else float(text == before)
        by_task[item.task.name].append(value)
    return mean(mean(values) for values in by_task.values())


@dataclass(frozen=True)
class Untouched:
    """Results of the untouched model on the questions.

    Attributes
    ----------
    answers : list of str
        Answer to each question.
    performance : float
        Performance of these answers.
    """

    answers: list[str]
    performance: float


@dataclass(frozen=True)
class Asking:
    """A model and its calibration questions.

    Attributes
    ----------
    model, processor
        As `vistrim.load` returns them.
    items : sequence of Item
        The questions; adjacent ones of the same task share a batch.
    batch_size : int
        Questions per batch.
    max_new_tokens : int
        Longest answer, in tokens.
    """

    model: Any
    processor: Any
    items: Sequence[Item]
    batch_size: int = 8
    max_new_tokens: int = 160

    def answers(self, method: Method | None) -> list[Answer]:
        """Answers to all questions, untouched or trimmed."""
        return [
            found
            for batch in batches(self.items, self.batch_size)
            for found in answer(self.model, self.processor, batch, method, self.max_new_tokens)
        ]


class Evaluations(Store[Untouched | float]):
    """Performance of keep rates on calibration questions; the same rates are evaluated once, also across runs.

    Parameters
    ----------
    asking : Asking
        Model and questions.
    objective : {"accuracy", "agreement"}
        See `Objective`.
    rows : {"last", "prompt"}
        Rows whose attention ranks; see `KeepRates`.
    path : Path or None
        JSON lines: the settings, the untouched model's answers, and one line per evaluation. None keeps them in memory.
    settings : mapping
        Settings that all evaluations of the file must share, as plain JSON values.

    Raises
    ------
    ValueError
        If the questions do not support the objective.
    ResumeError
        See `vistrim._utils.store.Store`.
    """

    def __init__(
        self, asking: Asking, objective: Objective, rows: Rows, path: Path | None, settings: Mapping[str, Any]
    ) -> None:
        check_objective(objective, asking.items)
        self._asking, self._objective, self._ranking = asking, objective, rows
        super().__init__(path, settings, ("rates",), _decoded)

    @property
    def untouched(self) -> Untouched:
        """Results of the untouched model, measured on first access."""
        if (None,) not in self.rows:
            texts = [one.answer for one in self._asking.answers(None)]
            untouched = Untouched(texts, performance(self._objective, self._asking.items, texts, texts))
            self.put([{"rates": None, "untouched": asdict(untouched)}])
        found_before = self.rows[None,]
        assert isinstance(found_before, Untouched)
        return found_before

    def __call__(self, rates: tuple[float, ...]) -> float:
        """Performance of keep rates, one for each layer."""
        if (rates,) not in self.rows:
            untouched = self.untouched
            given = [one.answer for one in self._asking.answers(KeepRates(rates, self._ranking))]
            found = performance(self._objective, self._asking.items, given, untouched.answers)
            self.put([{"rates": rates, "performance": found}])
        known = self.rows[rates,]
        assert isinstance(known, float)
        return known

    def __len__(self) -> int:
        """Number of known evaluations of keep rates."""
        return sum(isinstance(found, float) for found in self.rows.values())


def _decoded(row: dict[str, Any]) -> Untouched | float:
    return Untouched(**row["untouched"]) if row["rates"] is None else float(row["performance"])
