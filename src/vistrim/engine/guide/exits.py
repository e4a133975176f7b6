"""Samples that a guide has answered: what becomes of the call and of its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

PER_SAMPLE = ("input_ids", "inputs", "attention_mask", "position_ids")
"""Arguments of ``generate`` with a row for each sample."""
PER_IMAGE = ("pixel_values", "image_sizes")
"""Arguments of ``generate`` with a row for each image."""


def without(arguments: dict[str, Any], exited: Sequence[bool], images: Sequence[int]) -> dict[str, Any]:
    """Arguments of ``generate`` for the samples that have not exited.

    Parameters
    ----------
    arguments : dict
        By name.
    exited : sequence of bool
        Per sample.
    images : sequence of int
        Images of each sample.
    """
    samples = ~torch.tensor(exited)
    of_images = samples.repeat_interleave(torch.tensor(images))
    rows = dict.fromkeys(PER_SAMPLE, samples) | dict.fromkeys(PER_IMAGE, of_images)
    left = {}
    for name, value in arguments.items():
        if name not in rows or value is None:
            left[name] = value
        elif rows[name].any():
            left[name] = value[rows[name].to(value.device)]
    return left


def merged(
    ids: Tensor, answers: Tensor, lengths: Sequence[int], exited: Sequence[bool], others: Tensor | None, pad: int
) -> Tensor:
    """Put the sequences of all samples together.

    Parameters
    ----------
    ids : Tensor
        ``[batch, prompt]`` long.
    answers : Tensor
        ``[batch, n]`` long: the guide's.
    lengths : sequence of int
        Tokens of these answers.
    exited : sequence of bool
        The samples that get them.
    others : Tensor or None
        ``[the others, prompt + m]`` long: the model's sequences.
    pad : int
        Stands behind shorter answers.

    Returns
    -------
    Tensor
        ``[batch, prompt + longest]`` long.
    """
    prompt = ids.shape[1]
    width = max(prompt + n for n, gone in zip(lengths, exited, strict=True) if gone)
    width = max(width, others.shape[1] if others is not None else 0)
    sequences = ids.new_full((len(ids), width), pad)
    sequences[:, :prompt] = ids
    for sample, length in enumerate(lengths):
        if exited[sample]:
            sequences[sample, prompt : prompt + length] = answers[sample, :length].to(ids.device)
    if others is not None:
        sequences[~torch.tensor(exited, device=ids.device), : others.shape[1]] = others
    return sequences
