"""Performance of keep rates: every evaluation is kept in a file, so that a search that was cut off goes on."""

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
"""accuracy: mean score of the answers; agreement: share of answers that are the untouched model's, word for word.
Both are means over tasks, so that a task with more questions weighs no more."""


def check_objective(objective: str, items: Sequence[Item]) -> None:
    """Refuse anything but an objective that the items allow.

    Raises
    ------
    ValueError
        If there is no such objective, no item, or an answer is missing that would be scored.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"objective={objective!r}: must be {' or '.join(get_args(Objective))}")
    if not items:
        raise ValueError("there is no question to calibrate on: give at least one")
    missing = [item.id for item in items if not item.answer.strip()]
    if objective == "accuracy" and missing:
        raise ValueError(
            f"{len(missing)} questions have no right answer (first {missing[0]}): add it, or use agreement with the "
            "untouched model, which needs none"
        )


def performance(objective: Objective, items: Sequence[Item], given: Sequence[str], untouched: Sequence[str]) -> float:
    """Performance in [0, 1] of the answers ``given``, next to those of the untouched model."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for item, text, before in zip(items, given, untouched, strict=True):
        value = item.score(text) if objective == "accuracy" else float(text == before)
        by_task[item.task.name].append(value)
    return mean(mean(values) for values in by_task.values())


@dataclass(frozen=True)
class Untouched:
    """What the untouched model does with the questions.

    Attributes
    ----------
    answers : list of str
        One for each question.
    performance : float
        Of these answers.
    text_tokens, visual_tokens : float
        In a prompt, mean over the questions.
    """

    answers: list[str]
    performance: float
    text_tokens: float
    visual_tokens: float


@dataclass(frozen=True)
class Asking:
    """A model and its calibration questions.

    Attributes
    ----------
    model, processor
        As `vistrim.load` returns them.
    items : sequence of Item
        The questions; neighbours of one task are answered together.
    batch_size : int
        How many at once.
    max_new_tokens : int
        Longest answer.
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
    """Performance of keep rates on calibration questions; the same rates are evaluated once, also over several runs.

    Parameters
    ----------
    asking : Asking
        Model and questions.
    objective : {"accuracy", "agreement"}
        See `Objective`.
    rows : {"last", "prompt"}
        What ranks; see `KeepRates`.
    path : Path or None
        JSON lines: the settings, the untouched model's answers, and an evaluation each. None keeps them in memory.
    settings : mapping
        What all evaluations of the file must share; plain JSON values.

    Raises
    ------
    ValueError
        If the questions do not allow the objective.
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
        """The untouched model's side, measured when it is first asked for."""
        if (None,) not in self.rows:
            found = self._asking.answers(None)
            texts = [one.answer for one in found]
            untouched = Untouched(
                answers=texts,
                performance=performance(self._objective, self._asking.items, texts, texts),
                text_tokens=mean(one.prompt_tokens - one.visual_tokens for one in found),
                visual_tokens=mean(one.visual_tokens for one in found),
            )
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
        """Evaluations of keep rates that are known."""
        return sum(isinstance(found, float) for found in self.rows.values())


def _decoded(row: dict[str, Any]) -> Untouched | float:
    return Untouched(**row["untouched"]) if row["rates"] is None else float(row["performance"])
