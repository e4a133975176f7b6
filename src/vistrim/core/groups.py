"""Choosing tokens in groups, such as the windows of an image, without reading anything back from the device."""

import torch
from torch import Tensor


def runs(counted: Tensor, groups: int) -> Tensor:
    """Deal tokens out to runs of neighbors that are equally long, or one longer at the beginning.

    Parameters
    ----------
    counted : Tensor
        ``[n]`` bool: tokens that are dealt out.
    groups : int
        Number of runs.

    Returns
    -------
    Tensor
        ``[n]`` long: the run of each token, from 0; what is not dealt out has that of the token before it.
    """
    total = counted.sum()
    place = (counted.cumsum(0) - 1).clamp(min=0)
    length, longer = total // groups, total % groups
    of_longer = place // (length + 1)
    of_others = longer + (place - longer * (length + 1)) // length.clamp(min=1)
    return torch.where(of_longer < longer, of_longer, of_others).clamp(max=groups - 1)


def windows(rows: int, columns: int, side: int, device: torch.device) -> Tensor:
    """Assign the tokens of a grid to ``side`` x ``side`` windows.

    Parameters
    ----------
    rows, columns : int
        Size of the grid.
    side : int
        Windows along each side.
    device : torch.device
        Of the result.

    Returns
    -------
    Tensor
        ``[rows * columns]`` long: window of each token, in raster order.
    """
    row = torch.arange(rows, device=device) * side // rows
    column = torch.arange(columns, device=device) * side // columns
    return (row[:, None] * side + column).flatten()


def ranks(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """Rank tokens within their groups.

    Parameters
    ----------
    scores : Tensor
        ``[n]`` float.
    group : Tensor
        ``[n]`` long: group of each token.
    groups : int
        Number of groups.

    Returns
    -------
    Tensor
        ``[n]`` long: rank in the group, from 0 for the highest score; ties go to the earlier token.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    sizes = torch.zeros(groups, dtype=torch.long, device=group.device)
    sizes = sizes.scatter_add(0, group, torch.ones_like(group))
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(scores), device=group.device)
    return torch.empty_like(place).scatter(0, order, place - first[group[order]])


ROUNDING = 1e-4
"""What a share of tokens may lack of a whole number and still be one."""


def shared_out(weights: Tensor, sizes: Tensor, count: int) -> Tensor:
    r"""Share out ``count`` tokens to groups in proportion to weights; no group gets more than it has.

    Group c gets :math:`\min(m_c, \lambda w_c)`, with the :math:`\lambda` at which that makes ``count``: what a full
    group leaves goes to the others by their weights. Shares are rounded down; what is missing then goes one each to the
    groups with the largest weights that have room.

    Parameters
    ----------
    weights : Tensor
        ``[groups]`` float32, not negative.
    sizes : Tensor
        ``[groups]`` long: :math:`m_c`.
    count : int
        Fewer than the sum of sizes.

    Returns
    -------
    Tensor
        ``[groups]`` long.
    """
    # So that an image nobody attends to is shared out, too.
    weights = weights + weights.sum() * 1e-9 + 1e-30
    full_at = sizes / weights
    order = full_at.argsort(stable=True)
    filled = sizes[order].cumsum(0) - sizes[order]
    others = weights[order].flip(0).cumsum(0).flip(0)
    # If the k groups that are full first were full, this would be the factor; it is the first that fills no more, and
    # from there on they fall.
    factors = (count - filled) / others
    factor = torch.where(factors <= full_at[order], factors, 0.0).amax()
    shares = torch.minimum(weights * factor, sizes.float())
    given = (shares + ROUNDING).floor().long().minimum(sizes)
    has_room = given < sizes
    by_weight = torch.where(has_room, weights, -1.0).argsort(descending=True, stable=True)
    missing = count - given.sum()
    one_more = torch.arange(len(weights), device=weights.device) < missing
    return given + torch.zeros_like(given).scatter(0, by_weight, one_more.long())
