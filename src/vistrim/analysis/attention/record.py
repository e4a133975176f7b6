"""The record of one question: plain numbers, from which the summary is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistrim.analysis.attention.measures import between_layers, normalized, overlap, sinks, top
from vistrim.analysis.attention.reading import ROWS, Reading

DIGITS = 4
"""Significant digits of the numbers in a record."""


def record(read: Reading, sample: int, steps: int, other: Reading | None) -> dict[str, Any]:
    """Summarize the attention of one sample.

    Parameters
    ----------
    read : Reading
        Attention of its batch.
    sample : int
        Number of the sample in the batch.
    steps : int
        Query rows of its answer: one per token.
    other : Reading or None
        Attention with the same images and other questions.

    Returns
    -------
    dict
        Plain values for JSON. Lists are by layer, then by step or by the other layer.
    """
    visual, count = read.visual[sample], read.top_tokens[sample]
    rows = torch.stack(read.received["last"])[:, sample]
    found: dict[str, Any] = {
        "on_visual": {
            "question": [layer[sample].item() for layer in read.question_on_visual],
            "steps": _of_steps(read.steps_on_visual, sample, steps),
        },
        "steps": {
            "kept_from_step": _of_steps(read.kept_from_step, sample, steps),
            "kept_from_prompt": _of_steps(read.kept_from_prompt, sample, steps),
            "kept_from_layer": _of_steps(read.kept_from_layer, sample, steps),
        },
        "divergence": {
            "row": between_layers(rows),
            "visual": between_layers(normalized(rows, visual)),
        },
        "top_draws": {},
        "overlap": {},
        "other_question": {} if other is not None else None,
    }
    for name in ROWS:
        own = _on_image(read, name, sample)
        best = _top(own, count)
        found["top_draws"][name] = (own * best).sum(-1) / own.sum(-1)
        found["overlap"][name] = overlap(best[:, None], best)
        if other is not None:
            found["other_question"][name] = overlap(best, _top(_on_image(other, name, sample), count))
    found["sinks"] = _sinks(read, other, sample)
    return plain(found)


def _of_steps(layers: list[Tensor], sample: int, steps: int) -> Tensor:
    return torch.stack([layer[sample, :steps] for layer in layers])


def _on_image(read: Reading, rows: str, sample: int) -> Tensor:
    """Attention received by the visual tokens, ``[layers, visual tokens]``."""
    return torch.stack([layer[sample, read.visual[sample]] for layer in read.received[rows]])


def _top(scores: Tensor, count: int) -> Tensor:
    return top(scores[None], torch.ones(1, scores.shape[1], dtype=torch.bool), [count])[0]


def _sinks(read: Reading, other: Reading | None, sample: int) -> dict[str, Any]:
    own = _on_image(read, "question", sample)
    found = sinks(own, torch.ones_like(own, dtype=torch.bool))
    if other is not None:
        found &= sinks(_on_image(other, "question", sample), torch.ones_like(found))
    lasting = 2 * found.sum(0) >= len(found)
    return {
        "count": found.sum(-1),
        "draws": (own * found).sum(-1) / own.sum(-1),
        "lasting": lasting.nonzero()[:, 0],
    }


def plain(value: Any) -> Any:
    """Tensors as lists of numbers with `DIGITS` significant digits, and None for NaN."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
