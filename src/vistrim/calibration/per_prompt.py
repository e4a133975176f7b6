"""Measurements of a model on each of several prompts."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def measure_each(prompts: Iterable[Mapping[str, Any]], measure: Callable[[Mapping[str, Any]], Tensor]) -> Tensor:
    """Measure every processor output.

    Parameters
    ----------
    prompts : iterable of mapping
        Processor outputs, each with one or more prompts.
    measure : callable
        Returns ``[batch, ...]`` for a processor output.

    Returns
    -------
    Tensor
        ``[prompts, ...]``: the measurements of all prompts.

    Raises
    ------
    ValueError
        If there is no prompt.
    TypeError
        If ``prompts`` is a single mapping.
    """
    if isinstance(prompts, Mapping):
        raise TypeError("prompts must be several processor outputs: write [inputs] for a single one")
    found = [measure(inputs) for inputs in prompts]
    if not found:
        raise ValueError("there are no prompts: give one or more processor outputs")
    return torch.cat(found)
