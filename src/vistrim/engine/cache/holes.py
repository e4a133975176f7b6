"""Eviction that moves few columns: those at the end go to the places of the evicted ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moves:
    """Copies within the columns of a cache layer.

    Attributes
    ----------
    sources, targets : Tensor
        ``[batch, n]`` long: columns to read, and columns to write after all are read, all different in a sample.
    order : Tensor
        ``[batch, kept]`` long: new column of each kept token, in the order of the tokens.
    """

    sources: Tensor
    targets: Tensor
    order: Tensor


def fill_holes(kept: Tensor, order: Tensor | None, width: int, behind: int) -> Moves:
    """Plan the eviction of tokens from the first ``width`` columns of a layer.

    The columns that are left in front stay where they are. Kept columns behind these go to the places of evicted ones.
    The columns after the first ``width`` follow, in their order.

    Parameters
    ----------
    kept : Tensor
        ``[batch, kept]`` long: number of each kept token, in the order of the tokens; fewer than ``width``.
    order : Tensor or None
        ``[batch, width]`` long: column of each token. None: tokens are in the order of the columns.
    width : int
        Number of tokens.
    behind : int
        Number of columns after them.

    Returns
    -------
    Moves
        The copies.
    """
    batch, left = kept.shape
    columns = kept if order is None else order.gather(1, kept)
    every = torch.arange(width + behind, device=kept.device)
    stays = torch.zeros(batch, width, dtype=torch.uint8, device=kept.device).scatter_(1, columns, 1)
    # As many columns are at the end as are evicted. Both lists are sorted so that each kept column at the end meets a
    # place in front. The remaining pairs are both at the end.
    holes = stays.argsort(dim=1, stable=True)[:, : width - left]
    at_end = left + (1 - stays[:, left:]).argsort(dim=1, stable=True)
    moved = every[:width].repeat(batch, 1).scatter_(1, at_end, holes)
    following = every[width:].expand(batch, -1)
    # Each column is written at most once. Columns that no one needs go behind all that are used.
    places = torch.where(holes < left, holes, every[left + behind :])
    return Moves(
        sources=torch.cat([at_end, following], 1),
        targets=torch.cat([places, following - (width - left)], 1),
        order=moved.gather(1, columns),
    )
