"""DART: tokens that are least like a few pivots."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vistrim.core.precision import full_precision


def strongest(key: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Choose pivots: the candidates with the largest L1 norm of their keys.

    Parameters
    ----------
    key : Tensor
        ``[heads, n, head_dim]``.
    candidates : Tensor
        ``[n]`` bool.
    count : int
        How many.

    Returns
    -------
    Tensor
        ``[count]`` long, rising. Where there are fewer candidates, the strongest of them stands for the others, too.
    """
    norm = key.float().abs().sum((0, 2)).masked_fill(~candidates, -1.0)
    order = norm.argsort(descending=True, stable=True)[:count]
    return torch.where(norm[order] >= 0, order, order[:1]).sort().values


@full_precision
def least_like(states: Tensor, pivots: Tensor, candidates: Tensor, each: int) -> Tensor:
    """For each pivot in turn, take the ``each`` candidates with the lowest cosine to it that nobody has taken yet.

    Parameters
    ----------
    states : Tensor
        ``[n, hidden]``.
    pivots : Tensor
        ``[p]`` long.
    candidates : Tensor
        ``[n]`` bool: at least ``p * each``.
    each : int
        Tokens per pivot.

    Returns
    -------
    Tensor
        ``[n]`` bool; ties go to the earlier token.
    """
    unit = normalize(states.float(), dim=-1)
    cosine = (unit[pivots] @ unit.T).masked_fill(~candidates, torch.inf)
    taken = torch.zeros_like(candidates)
    for to_pivot in cosine.unbind():
        found = to_pivot.masked_fill(taken, torch.inf).argsort(stable=True)[:each]
        taken = taken.index_fill(0, found, True)
    return taken
