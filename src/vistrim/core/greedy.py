"""Choosing tokens one after another, each for what it adds to those chosen before.

All rounds stay on the device: a round is at most four kernels, and nothing is read back. Once nothing is left that adds
anything, a round may name a token again; the places that this leaves open are filled at the end.
"""

import torch
from torch import Tensor

from vistrim.core.precision import full_precision


def farthest_first(distance: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    r"""Choose tokens that are far from each other.

    The first is the one whose nearest other token is farthest away, :math:`\arg\max_i \min_{j \ne i} D_{ij}`; each of
    the others is :math:`\arg\max_i w_i \min_{s \in S} D_{is}` over those that are not chosen yet.

    Parameters
    ----------
    distance : Tensor
        ``[n, n]`` float: :math:`D`, symmetric; its diagonal is ignored.
    count : int
        Tokens to choose, from 1 to n.
    weight : Tensor, optional
        ``[n]`` float: :math:`w`, not negative; None: 1.

    Returns
    -------
    Tensor
        ``[count]`` long, in the order of the choice; ties go to the earlier token.
    """
    n = len(distance)
    own = torch.eye(n, dtype=torch.bool, device=distance.device)
    first = distance.masked_fill(own, torch.inf).amin(0).argmax(0, keepdim=True)
    # A weight that is not negative does not change which token is nearest.
    weighted = distance if weight is None else distance * weight
    weighted = weighted.masked_fill(own, -torch.inf)
    chosen = [first]
    value = weighted.index_select(0, first)[0]
    for _ in range(count - 1):
        following = value.argmax(0, keepdim=True)
        chosen.append(following)
        value = torch.minimum(value, weighted.index_select(0, following)[0])
    return torch.cat(chosen)


@full_precision
def most_covering(similarity: Tensor, weight: Tensor, count: int) -> Tensor:
    r"""Choose tokens that together are similar to all: weighted greedy facility location.

    With :math:`c_i`, at first 0, the best similarity of token i to a chosen one, each round takes
    :math:`\arg\max_j w_j \sum_i \max(0, C_{ij} - c_i)` over those that are not chosen yet.

    Parameters
    ----------
    similarity : Tensor
        ``[n, n]`` float32: :math:`C`, symmetric.
    weight : Tensor
        ``[n]`` float32: :math:`w`, not negative.
    count : int
        Tokens to choose, from 1 to n.

    Returns
    -------
    Tensor
        ``[count]`` long: those that add something in the order of the choice, then others by falling weight; ties go
        to the earlier token.
    """
    n = len(similarity)
    # For each candidate what would be covered and what is: max(c, C_j), and c. The sum of one minus that of the other
    # is the gain, and one product of matrices gives it with its weight.
    covered = torch.zeros(n, 2, n, device=similarity.device)
    torch.clamp(similarity, min=0, out=covered[:, 0])
    signs = torch.ones(2, n, device=similarity.device)
    signs[1] = -1
    weights = (weight[:, None] * signs.flatten())[:, :, None]
    chosen = []
    for _ in range(count):
        following = torch.bmm(covered.view(n, 1, 2 * n), weights).view(n).argmax(0, keepdim=True)
        chosen.append(following)
        torch.maximum(covered, covered[:, 0].index_select(0, following), out=covered)
    return filled(torch.cat(chosen), weight)


EXHAUSTED = 1e-6
"""Share of the largest diagonal entry below which the rest of a kernel is rounding."""


@full_precision
def determinantal(kernel: Tensor, count: int) -> Tensor:
    r"""Choose tokens by the greedy maximum a posteriori of a determinantal point process.

    Each round takes the token that multiplies :math:`\det L_S` most: the largest diagonal entry of what is left of
    :math:`L` when the chosen ones are eliminated.

    Parameters
    ----------
    kernel : Tensor
        ``[n, n]`` float32: :math:`L`, symmetric and positive semidefinite.
    count : int
        Tokens to choose, from 1 to n.

    Returns
    -------
    Tensor
        ``[count]`` long: as far as the kernel's rank goes in the order of the choice, then others by falling diagonal
        entry; ties go to the earlier token.

    Notes
    -----
    Source: Chen et al., NeurIPS 2018, which updates a Cholesky factor row by row. Eliminating the whole matrix
    (:math:`L - L_{:j} L_{j:} / L_{jj}`) computes the same numbers in fewer kernels.
    """
    n = len(kernel)
    # One entry more, which is never eliminated: it is found once nothing but rounding is left.
    left = torch.zeros(n + 1, n + 1, device=kernel.device)
    left[:n, :n] = kernel
    left[n, n] = EXHAUSTED * kernel.diagonal().amax()
    rows, square, diagonal = left[:, :n], left[:n, :n], left.diagonal()
    chosen = []
    for _ in range(count):
        pivot, following = diagonal.max(0, keepdim=True)
        chosen.append(following)
        row = rows.index_select(0, following)
        square.addcmul_((row / pivot).T, row, value=-1)
    return filled(torch.cat(chosen), kernel.diagonal())


def filled(chosen: Tensor, score: Tensor) -> Tensor:
    """Replace what is named a second time, or is no token, by the best of those that are not named.

    Parameters
    ----------
    chosen : Tensor
        ``[count]`` long: from 0 to n, where n is no token.
    score : Tensor
        ``[n]`` float.

    Returns
    -------
    Tensor
        ``[count]`` long: distinct tokens; those named keep their order.
    """
    n, count = len(score), len(chosen)
    place = torch.arange(count, device=chosen.device)
    # Where each token is named first; the others behind all of these, by score.
    first = torch.full((n + 1,), count, device=chosen.device).scatter_reduce(0, chosen, place, "amin")[:n]
    by_score = score.argsort(descending=True, stable=True)
    return by_score[first[by_score].argsort(stable=True)][:count]
