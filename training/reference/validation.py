"""Validation scores of a model in training."""

from __future__ import annotations

from statistics import mean
from typing import Any

from vistrim.evaluation.answering import answer
from vistrim.methods.base.method import Method
from vistrim.reference.items import items
from vistrim.reference.tasks import TASKS

#: Longer than any description.
MAX_NEW_TOKENS = 160


def validation_scores(model: Any, processor: Any, method: Method | None, level: str, number: int) -> dict[str, float]:
    """Mean score of greedy answers to ``number`` validation questions of each task about scenes."""
    scores = {}
    for task in TASKS:
        asked = items(task, "validation", level, number)
        given = answer(model, processor, asked, method, MAX_NEW_TOKENS)
        scores[task] = mean(item.score(g.answer) for g, item in zip(given, asked, strict=True))
    return scores
