"""Samples that exit with the answer of the guide model: removal from the call, and insertion into the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

PER_SAMPLE = ("input_ids", "inputs", "attention_mask", "position_ids")
"""Arguments of ``generate`` with one row per sample."""
PER_IMAGE = ("pixel_values", "image_sizes")
"""Arguments of ``generate`` with one row per image."""


def without(arguments: dict[str, Any], exited: Sequence[bool], images: Sequence[int]) -> dict[str, Any]:
    """Restrict arguments of ``generate`` to the samples that have not exited.

    Parameters
    ----------
    arguments : dict
        Arguments by name.
    exited : sequence of bool
        Whether each sample has exited.
    images : sequence of int
        Number of images of each sample.
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
    """Combine the sequences of all samples.

    Parameters
    ----------
    ids : Tensor
        ``[batch, prompt]`` long.
    answers : Tensor
        ``[batch, n]`` long: answers of the guide model.
    lengths : sequence of int
        Tokens of these answers.
    exited : sequence of bool
        Whether each sample gets the answer of the guide model.
    others : Tensor or None
        ``[other samples, prompt + m]`` long: sequences of the large model.
    pad : int
        Padding token after shorter answers.

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
