"""Measures of attention, as pure functions of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vistrim.core.selection import keep_top

SINK_FACTOR = 10
"""A visual token is a sink if it receives at least this many times the mean attention per visual token."""


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    r"""Jensen-Shannon divergence of distributions in the last dimension, in bits: 0 (equal) to 1 (disjoint).

    .. math:: JS = \tfrac12 KL(p \| m) + \tfrac12 KL(q \| m), \quad m = \tfrac12 (p + q)
    """
    m = (p + q) / 2

    def from_middle(x: Tensor) -> Tensor:
        return torch.where(x > 0, x * (x / m).log2(), 0.0).sum(-1)

    return ((from_middle(p) + from_middle(q)) / 2).clamp(0, 1)


def between_layers(rows: Tensor) -> Tensor:
    """Divergences ``[layers, layers]`` between the distributions ``[layers, tokens]`` of all layers."""
    return torch.stack([jensen_shannon(row, rows) for row in rows])


def normalized(rows: Tensor, among: Tensor) -> Tensor:
    """Attention as a distribution over a subset of the tokens; NaN where the subset receives none."""
    some = rows * among
    return some / some.sum(-1, keepdim=True)


def top(scores: Tensor, candidates: Tensor, counts: Sequence[int]) -> Tensor:
    """The ``counts[b]`` best candidates of each row.

    Parameters
    ----------
    scores : Tensor
        ``[batch, ..., tokens]`` float.
    candidates : Tensor
        ``[batch, tokens]`` bool.
    counts : sequence of int
        Number of tokens to choose, per sample.

    Returns
    -------
    Tensor
        ``[batch, ..., tokens]`` bool.
    """
    rows = scores.reshape(scores.shape[0], -1, scores.shape[-1])
    several = rows.shape[1]
    flat = candidates.repeat_interleave(several, 0)
    found = keep_top(rows.flatten(0, 1), flat, [count for count in counts for _ in range(several)])
    return found.keep.view(scores.shape)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Share of the tokens in one set ``[..., tokens]`` bool that are also in another set of the same size."""
    return (first & second).sum(-1) / first.sum(-1)


def sinks(scores: Tensor, visual: Tensor) -> Tensor:
    """Visual tokens that receive at least `SINK_FACTOR` times the mean, ``[..., tokens]`` bool.

    Parameters
    ----------
    scores : Tensor
        ``[..., tokens]``: attention received.
    visual : Tensor
        ``[..., tokens]`` bool.
    """
    mean = (scores * visual).sum(-1, keepdim=True) / visual.sum(-1, keepdim=True)
    return visual & (scores >= SINK_FACTOR * mean) & (mean > 0)
