"""Selection of tokens in groups, such as the windows of an image, without device synchronization."""

import torch
from torch import Tensor


def runs(counted: Tensor, groups: int) -> Tensor:
    """Divide tokens into runs of consecutive tokens of equal length.

    If the number of tokens is not a multiple of ``groups``, the first runs have one token more.

    Parameters
    ----------
    counted : Tensor
        ``[n]`` bool: tokens that count toward the length of a run.
    groups : int
        Number of runs.

    Returns
    -------
    Tensor
        ``[n]`` long: the run of each token, from 0. A token that does not count is in the run of the token before it.
    """
    place = counted.cumsum(0)
    total = place[-1]
    number = torch.arange(1, groups, device=counted.device)
    ends = number * (total // groups) + torch.minimum(number, total % groups)
    return torch.bucketize(place.clamp(min=1), ends)


def windows(rows: int, columns: int, side: int, device: torch.device) -> Tensor:
    """Assign the tokens of a grid to ``side`` x ``side`` windows.

    Parameters
    ----------
    rows, columns : int
        Size of the grid.
    side : int
        Number of windows along each side.
    device : torch.device
        Device of the result.

    Returns
    -------
    Tensor
        ``[rows * columns]`` long: window of each token, from 0. Tokens and windows are numbered in raster order.
    """
    row = torch.arange(rows, device=device) * side // rows
    column = torch.arange(columns, device=device) * side // columns
    return (row[:, None] * side + column).flatten()


def ranks(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """Rank tokens within their groups.

    Parameters
    ----------
    scores : Tensor
        ``[n]`` float: score of each token.
    group : Tensor
        ``[n]`` long: group of each token, from 0.
    groups : int
        Number of groups.

    Returns
    -------
    Tensor
        ``[n]`` long: rank in the group, from 0 for the highest score. Ties go to the earlier token.
    """
    order = scores.argsort(descending=True, stable=True)
    of_group, within = group[order].sort(stable=True)
    first = torch.searchsorted(of_group, torch.arange(groups, device=group.device))
    place = torch.arange(len(scores), device=group.device)
    return torch.empty_like(place).scatter_(0, order[within], place - first[of_group])


ROUNDING = 1e-4
"""Largest distance below a whole number, in tokens, at which a share is still rounded up to it."""


def shared_out(weights: Tensor, sizes: Tensor, count: int) -> Tensor:
    r"""Distribute ``count`` tokens over groups in proportion to weights, up to the size of each group.

    Group c gets :math:`\min(m_c, \lambda w_c)` tokens, with the :math:`\lambda` for which the sum is ``count``. The
    surplus of a full group thus goes to the others in proportion to their weights. Shares are rounded down. The
    remaining tokens go one each to the groups with the largest weights that are not full.

    Parameters
    ----------
    weights : Tensor
        ``[groups]`` float32: :math:`w_c`, not negative.
    sizes : Tensor
        ``[groups]`` long: :math:`m_c`, the number of tokens in each group.
    count : int
        Number of tokens to distribute, less than the sum of ``sizes``.

    Returns
    -------
    Tensor
        ``[groups]`` long: number of tokens for each group, at most its size. The sum is ``count``.
    """
    # Weights must not be 0, so that an image without any attention is distributed, too.
    weights = weights + weights.sum() * 1e-9 + 1e-30
    full_at = sizes / weights
    order = full_at.argsort(stable=True)
    filled = sizes[order].cumsum(0) - sizes[order]
    others = weights[order].flip(0).cumsum(0).flip(0)
    # Groups are sorted by the factor at which they become full. Entry k of `factors` holds if the first k groups are
    # full. The first entry that fills no further group is the right one. The entries before it are masked, and later
    # ones are not larger, so it is the maximum.
    factors = (count - filled) / others
    factor = torch.where(factors <= full_at[order], factors, 0.0).amax()
    shares = torch.minimum(weights * factor, sizes.float())
    given = (shares + ROUNDING).floor().long().minimum(sizes)
    has_room = given < sizes
    by_weight = torch.where(has_room, weights, -1.0).argsort(descending=True, stable=True)
    missing = count - given.sum()
    one_more = torch.arange(len(weights), device=weights.device) < missing
    return given + torch.zeros_like(given).scatter(0, by_weight, one_more.long())
