"""Pivots of DART, and the tokens that are least similar to them."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vistrim.core.precision import full_precision


def strongest(key: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Select the candidates with the largest L1 norm of their keys as pivots.

    Parameters
    ----------
    key : Tensor
        ``[heads, n, head_dim]``: keys of one layer.
    candidates : Tensor
        ``[n]`` bool: tokens to select from.
    count : int
        Number of pivots.

    Returns
    -------
    Tensor
        ``[count]`` long, in ascending order. If there are fewer candidates, the strongest one is repeated.
    """
    norm = key.float().abs().sum((0, 2)).masked_fill(~candidates, -1.0)
    order = norm.argsort(descending=True, stable=True)[:count]
    return torch.where(norm[order] >= 0, order, order[:1]).sort().values


@full_precision
def least_like(states: Tensor, pivots: Tensor, candidates: Tensor, each: int) -> Tensor:
    """Select the ``each`` remaining candidates with the lowest cosine to each pivot in turn.

    Parameters
    ----------
    states : Tensor
        ``[n, hidden]``: hidden states.
    pivots : Tensor
        ``[p]`` long: indices of the pivots, in the order in which they select.
    candidates : Tensor
        ``[n]`` bool: tokens to select from, at least ``p * each``.
    each : int
        Number of tokens per pivot.

    Returns
    -------
    Tensor
        ``[n]`` bool: the selected tokens. Ties go to the earlier token.
    """
    unit = normalize(states.float(), dim=-1)
    cosine = (unit[pivots] @ unit.T).masked_fill(~candidates, torch.inf)
    taken = torch.zeros_like(candidates)
    for to_pivot in cosine.unbind():
        found = to_pivot.masked_fill(taken, torch.inf).argsort(stable=True)[:each]
        taken = taken.index_fill(0, found, True)
    return taken
