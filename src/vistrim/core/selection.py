"""Choosing rows: top-k with a count per sample, ragged batches, fast row copies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 32
"""Rows of which only one in so many is wanted are gathered one by one."""


@dataclass(frozen=True)
class Selection:
    """What a method decides: which visual tokens stay, and what is merged into them.

    Attributes
    ----------
    keep : Tensor
        ``[batch, tokens]`` bool, True for the visual tokens that stay. Other tokens (text) are ignored:
        they always stay.
    counts : tuple of int
        Number of True entries of ``keep`` per sample, known to the method without reading the tensor back.
    merge_into : Tensor, optional
        ``[batch, tokens]`` long. For a visual token that goes: the row of the kept token that absorbs it
        (its hidden state enters that token's mean), or -1 if it is dropped. -1 everywhere else.
    behind : Tensor, optional
        ``[batch, tokens]`` long: for a kept visual token that leaves its place, the row behind which it goes (several
        behind one row in their order; what is in that row may go); -1 everywhere else.
    renumber : bool
        Whether the tokens that are left get consecutive RoPE positions. Otherwise each keeps its own.
    hidden : Tensor, optional
        ``[batch, tokens, hidden]``: what the tokens with True in ``replaced`` become; other rows are ignored. Each of
        them stands for several tokens from then on.
    replaced : Tensor, optional
        ``[batch, tokens]`` bool: kept visual tokens that become what is in ``hidden``; None: all of them.
    """

    keep: Tensor
    counts: tuple[int, ...]
    merge_into: Tensor | None = None
    behind: Tensor | None = None
    renumber: bool = False
    hidden: Tensor | None = None
    replaced: Tensor | None = None

    @property
    def changed(self) -> Tensor:
        """``[batch, tokens]`` bool: tokens that become what is in ``hidden``."""
        return self.keep if self.replaced is None else self.replaced


def keep_top(scores: Tensor, candidates: Tensor, counts: Sequence[int]) -> Selection:
    """Keep the ``counts[b]`` candidates with the highest score in each sample.

    Parameters
    ----------
    scores : Tensor
        ``[batch, tokens]`` float. NaN and minus infinity rank equal, below every other score.
    candidates : Tensor
        ``[batch, tokens]`` bool: the tokens to choose from (the visual ones).
    counts : sequence of int
        Tokens to keep per sample, at most the number of its candidates.

    Returns
    -------
    Selection
        Ties go to the earlier token.
    """
    most, lowest = max(counts), torch.finfo(torch.float32).min
    ranked = torch.where(candidates, scores.float().nan_to_num(nan=lowest), -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)[:, :most]
    wanted: Tensor | bool = True
    if min(counts) < most:
        wanted = torch.arange(most, device=order.device) < _column(counts, order.device)
    return Selection(torch.zeros_like(candidates).scatter_(1, order, wanted), tuple(counts))


def kept_rows(keep: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Row indices of the kept tokens, in order, as a rectangle.

    Samples that keep fewer than the widest one are filled up on the left with rows they do not keep, so that
    the last row is the last token in every sample.

    Parameters
    ----------
    keep : Tensor
        ``[batch, tokens]`` bool.
    counts : sequence of int
        Number of True entries per sample.

    Returns
    -------
    index : Tensor
        ``[batch, max(counts)]`` long.
    valid : Tensor
        ``[batch, max(counts)]`` bool, False for fillers.
    """
    width = max(counts)
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    if min(counts) == width:
        return order, torch.ones_like(order, dtype=torch.bool)
    column = torch.arange(width, device=keep.device).expand(keep.shape[0], -1)
    fillers = width - _column(counts, keep.device)
    return order.gather(1, (column - fillers) % width), column >= fillers


def gather_rows(x: Tensor, index: Tensor, batch_dim: int, seq_dim: int) -> Tensor:
    """Copy rows ``index`` of ``x`` along ``seq_dim``, another set for each sample.

    Parameters
    ----------
    x : Tensor
        Any shape; ``batch_dim`` lies before ``seq_dim`` and has size ``batch`` or 1 (broadcast).
    index : Tensor
        ``[batch, rows]`` long.
    batch_dim, seq_dim : int
        Dimensions of ``x``; negative ones count from the end.

    Returns
    -------
    Tensor
        ``x`` with ``rows`` entries along ``seq_dim``, contiguous.

    Notes
    -----
    Whole rows are copied with one flat ``index_select``: 5 to 30 times faster than ``gather`` with an
    expanded index when rows are long. It first copies all of an ``x`` whose rows do not lie one behind the other, as
    queries and keys come from their projections; of a few rows, ``gather`` touches nothing else.
    """
    batch_dim, seq_dim = batch_dim % x.dim(), seq_dim % x.dim()
    index = index.to(x.device)
    batch = index.shape[0]
    if batch == 1:
        return x.index_select(seq_dim, index[0])
    x = x.expand([batch if d == batch_dim else size for d, size in enumerate(x.shape)])
    index = index.view([batch if d == batch_dim else 1 for d in range(seq_dim)] + [-1])
    lead, length, tail = x.shape[:seq_dim], x.shape[seq_dim], x.shape[seq_dim + 1 :]
    if not tail:
        return x.gather(seq_dim, index.expand(*lead, -1))
    if index.shape[-1] * FEW <= length:
        rows = index.view(*index.shape, *[1] * len(tail))
        return x.gather(seq_dim, rows.expand(*lead, -1, *tail))
    offsets = torch.arange(lead.numel(), device=x.device).view(*lead, 1) * length
    flat = offsets + index
    return x.reshape(-1, *tail).index_select(0, flat.flatten()).view(*flat.shape, *tail)


def _column(counts: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(counts, device=device)[:, None]
