"""Greedy selection: each step adds the token with the largest gain over the tokens selected before.

All steps stay on the device: a step launches at most four kernels and reads nothing back. When no token has a gain
left, a step may select a token again. `filled` replaces such duplicates at the end.
"""

import torch
from torch import Tensor

from vistrim.core.precision import full_precision


def farthest_first(distance: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    r"""Select tokens that are far from each other.

    The first token is the one whose nearest other token is farthest away, :math:`\arg\max_i \min_{j \ne i} D_{ij}`.
    Each further token is :math:`\arg\max_i w_i \min_{s \in S} D_{is}` over the tokens outside the set S of selected
    tokens.

    Parameters
    ----------
    distance : Tensor
        ``[n, n]`` float: :math:`D`, symmetric. The diagonal is ignored.
    count : int
        Number of tokens to select, from 1 to n.
    weight : Tensor, optional
        ``[n]`` float: :math:`w`, not negative. None: 1 for all tokens.

    Returns
    -------
    Tensor
        ``[count]`` long, in the order of selection. Ties go to the earlier token.
    """
    weighted = distance.detach().clone().fill_diagonal_(torch.inf)
    first = weighted.amin(0).argmax(0, keepdim=True)
    # Row s is to hold w_i * D_is. A weight that is not negative can be multiplied before the minimum over s.
    if weight is not None:
        weighted *= weight
    weighted.fill_diagonal_(-torch.inf)
    chosen = [first]
    value = weighted.index_select(0, first)[0]
    for _ in range(count - 1):
        following = value.argmax(0, keepdim=True)
        chosen.append(following)
        value = torch.minimum(value, weighted.index_select(0, following)[0])
    return torch.cat(chosen)


@full_precision
def most_covering(similarity: Tensor, weight: Tensor, count: int) -> Tensor:
    r"""Select tokens that together are similar to all tokens, by weighted greedy facility location.

    Each step selects :math:`\arg\max_j w_j \sum_i \max(0, C_{ij} - c_i)` over the tokens that are not selected yet.
    :math:`c_i` is the highest similarity of token i to a selected token, initially 0.

    Parameters
    ----------
    similarity : Tensor
        ``[n, n]`` float32: :math:`C`, symmetric.
    weight : Tensor
        ``[n]`` float32: :math:`w`, not negative.
    count : int
        Number of tokens to select, from 1 to n.

    Returns
    -------
    Tensor
        ``[count]`` long: tokens with a positive gain in the order of selection, then others by descending weight. Ties
        go to the earlier token.
    """
    n = len(similarity)
    # For each candidate j, the coverage with j and without it: max(c, C_j) and c. The gain is the difference of their
    # sums. One batched matrix product computes it, times the weight.
    covered = torch.zeros(n, 2, n, device=similarity.device)
    torch.clamp(similarity.detach(), min=0, out=covered[:, 0])
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
"""Share of the largest diagonal entry below which the remaining entries of a kernel are only rounding errors."""


@full_precision
def determinantal(kernel: Tensor, count: int) -> Tensor:
    r"""Select tokens by the greedy maximum a posteriori of a determinantal point process.

    Each step selects the token that increases :math:`\det L_S` by the largest factor. This factor is the diagonal entry
    of the token after Gaussian elimination of the selected tokens S from :math:`L`.

    Parameters
    ----------
    kernel : Tensor
        ``[n, n]`` float32: :math:`L`, symmetric and positive semidefinite.
    count : int
        Number of tokens to select, from 1 to n.

    Returns
    -------
    Tensor
        ``[count]`` long: tokens in the order of selection until the rank of the kernel is exhausted, then others by
        descending diagonal entry. Ties go to the earlier token.

    Notes
    -----
    Source: Chen et al., NeurIPS 2018, which updates a Cholesky factor row by row. Eliminating the whole matrix
    (:math:`L - L_{:j} L_{j:} / L_{jj}`) computes the same numbers in fewer kernels.
    """
    n = len(kernel)
    # An additional entry, which is never eliminated: it is the largest once only rounding errors are left.
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
    """Replace duplicates and invalid entries of a selection by the best tokens outside it.

    Parameters
    ----------
    chosen : Tensor
        ``[count]`` long, from 0 to n: the selected tokens, at most n of them. The value n stands for no token.
    score : Tensor
        ``[n]`` float: score by which the added tokens are ranked.

    Returns
    -------
    Tensor
        ``[count]`` long: the distinct selected tokens in their order, then the added ones by descending score.
    """
    n, count = len(score), len(chosen)
    place = torch.arange(count, device=chosen.device)
    # The place at which each token first appears, or count. Tokens that do not appear follow, sorted by score.
    first = torch.full((n + 1,), count, device=chosen.device).scatter_reduce(0, chosen, place, "amin")[:n]
    by_score = score.argsort(descending=True, stable=True)
    return by_score[first[by_score].argsort(stable=True)][:count]
