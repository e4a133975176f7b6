"""Figures over many questions: means, and intervals for the quality of rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vistrim.analysis.attention.reading import ROWS
from vistrim.analysis.attention.record import plain

ALL = "all"
RESAMPLES = 2000

Records = Sequence[dict[str, Any]]
Array = np.ndarray[Any, np.dtype[Any]]


def groups_of(records: Records) -> dict[str, list[dict[str, Any]]]:
    """All records, and those of each group of tasks if there are several groups."""
    found: dict[str, list[dict[str, Any]]] = {}
    for values in records:
        found.setdefault(values["group"], []).append(values)
    return {ALL: list(records)} | (found if len(found) > 1 else {})


def summarize(records: Records) -> dict[str, Any]:
    """Figures of one group of questions, for JSON; see `vistrim.analysis.attention.tables.DEFINITIONS`."""
    visual = sorted({values["visual_tokens"] for values in records})
    return plain(
        {
            "questions": len(records),
            "answer_tokens": _mean([values["answer_tokens"] for values in records]),
            "visual_tokens": visual[0] if len(visual) == 1 else [visual[0], visual[-1]],
            "on_visual": {
                "last": _mean([_steps(values, "on_visual", "steps")[:, 0] for values in records]),
                "question": _mean([values["on_visual"]["question"] for values in records]),
                "answer": _answer(records, "on_visual", "steps"),
                "steps": _curve(records, "on_visual", "steps"),
            },
            "top_draws": {name: _mean([values["top_draws"][name] for values in records]) for name in ROWS},
            "divergence": {
                name: _mean([values["divergence"][name] for values in records]) for name in ("row", "visual")
            },
            "overlap": {name: _mean([values["overlap"][name] for values in records]) for name in ROWS},
            "steps": {
                "kept_from_step": _answer(records, "steps", "kept_from_step"),
                "kept_from_layer": _answer(records, "steps", "kept_from_layer"),
                "kept_from_prompt": _curve(records, "steps", "kept_from_prompt"),
            },
            "other_question": _other_question(records),
            "sinks": _sinks(records, visual),
            "rankings": _rankings(records),
        }
    )


def _mean(values: Sequence[Any]) -> list[Any]:
    """Mean over the first axis, ignoring NaN; NaN where all values are NaN."""
    array = np.array(values, dtype=float)
    known = ~np.isnan(array)
    count = known.sum(0)
    total = np.where(known, array, 0.0).sum(0)
    with np.errstate(invalid="ignore"):
        means: list[Any] = (total / np.where(count, count, np.nan)).tolist()
    return means


def _steps(values: dict[str, Any], part: str, name: str) -> Array:
    """``[layers, steps]`` of one answer."""
    return np.array(values[part][name], dtype=float)


def _answer(records: Records, part: str, name: str) -> list[Any] | None:
    """Mean over the generated tokens of each answer, then over answers with more than one token."""
    found = [_steps(values, part, name)[:, 1:].mean(1) for values in records if values["answer_tokens"] > 1]
    return _mean(found) if found else None


def _curve(records: Records, part: str, name: str) -> dict[str, Any]:
    """Mean at each step that at least half of the answers have, over those that have it."""
    lengths = sorted((values["answer_tokens"] for values in records), reverse=True)
    last = lengths[(len(lengths) - 1) // 2]
    having = [[values for values in records if values["answer_tokens"] > step] for step in range(last)]
    means = [_mean([_steps(values, part, name)[:, step] for values in some]) for step, some in enumerate(having)]
    return {"answers": [len(some) for some in having], "mean": np.array(means, dtype=float).T.tolist()}


def _other_question(records: Records) -> dict[str, Any] | None:
    asked = [values["other_question"] for values in records if values["other_question"] is not None]
    if not asked:
        return None
    return {"questions": len(asked), **{name: _mean([values[name] for values in asked]) for name in ROWS}}


def _sinks(records: Records, visual: Sequence[int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "count": _mean([values["sinks"]["count"] for values in records]),
        "draws": _mean([values["sinks"]["draws"] for values in records]),
        "lasting": float(np.mean([len(values["sinks"]["lasting"]) for values in records])),
        "with_other_question": sum(values["other_question"] is not None for values in records),
        "places": None,
    }
    if len(visual) == 1:
        counts = np.zeros(visual[0])
        for values in records:
            counts[values["sinks"]["lasting"]] += 1
        found["places"] = (counts / len(records)).tolist()
    return found


def _rankings(records: Records) -> dict[str, Any]:
    found = {}
    for name in records[0]["rankings"]:
        figures = {
            figure: np.array([values["rankings"][name][figure] for values in records], dtype=float)
            for figure in ("first", "mean", "kept")
        }
        found[name] = {figure: values.mean(0).tolist() for figure, values in figures.items()}
        found[name]["kept_interval"] = _intervals(records, figures["kept"])
    return found


def _intervals(records: Records, values: Array) -> list[list[float]]:
    """95 % bootstrap intervals of the mean ``[layers, 2]``; questions about one image are drawn together."""
    images = [record["item"].rpartition("/")[0] for record in records]
    number = {image: place for place, image in enumerate(dict.fromkeys(images))}
    sums, sizes = np.zeros((len(number), values.shape[1])), np.zeros(len(number))
    for image, row in zip(images, values, strict=True):
        sums[number[image]] += row
        sizes[number[image]] += 1
    drawn = np.random.default_rng(0).multinomial(len(number), np.full(len(number), 1 / len(number)), RESAMPLES)
    means = (drawn @ sums) / (drawn @ sizes)[:, None]
    interval: list[Any] = np.percentile(means, [2.5, 97.5], axis=0).T.tolist()
    return interval
