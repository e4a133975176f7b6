"""How well a trimmed model answers calibration questions."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Literal, get_args

from vistrim.evaluation.scoring import score
from vistrim.reference.items import Item

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
    for item, answer, before in zip(items, given, untouched, strict=True):
        value = (
            score(item.task, answer, item.answer, item.prompt) if objective == "accuracy" else float(answer == before)
        )
        by_task[item.task].append(value)
    return mean(mean(values) for values in by_task.values())
