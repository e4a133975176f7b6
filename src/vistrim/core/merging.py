"""Clustering of tokens that are to be merged."""

import torch
from torch import Tensor


def dpc_knn(x: Tensor, clusters: int) -> Tensor:
    r"""Cluster vectors around density peaks.

    With :math:`d_{ij} = \lVert x_i - x_j \rVert / \sqrt D`, a vector's density is
    :math:`\rho_i = \exp(-\overline{d_{ij}^2})` over its ``clusters`` nearest vectors, itself included, and
    :math:`\delta_i` its distance to the nearest denser one (the largest distance of all, if there is none). The
    centres are those with the largest :math:`\rho_i \delta_i`; every vector joins its nearest centre.

    Parameters
    ----------
    x : Tensor
        ``[n, D]``.
    clusters : int
        Number of clusters, from 1 to n.

    Returns
    -------
    Tensor
        ``[n]`` long: the centre of each vector's cluster; a centre's is itself. Ties go to the earlier vector.

    Notes
    -----
    DPC-kNN as SparseVLM uses it (arXiv 2410.04417 and its code): the number of neighbours is the number of clusters.
    The code adds noise to the densities to break ties, which is left out: results are to be repeatable.
    """
    x = x.float()
    # Exact differences: a matrix product would lose digits where vectors are close.
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / x.shape[1] ** 0.5
    nearest = distance.topk(clusters, largest=False).values
    density = (-nearest.square().mean(1)).exp()
    denser = density[None, :] > density[:, None]
    separation = torch.where(denser, distance, distance.max()).amin(1)
    centres = (density * separation).argsort(descending=True, stable=True)[:clusters]
    centre_of = centres[distance[:, centres].argmin(1)]
    return centre_of.index_put((centres,), centres)
