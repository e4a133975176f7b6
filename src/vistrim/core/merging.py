"""Clustering of tokens before they are merged."""

import torch
from torch import Tensor


def dpc_knn(x: Tensor, clusters: int) -> Tensor:
    r"""Cluster vectors around density peaks.

    With :math:`d_{ij} = \lVert x_i - x_j \rVert / \sqrt D`, a vector's density is
    :math:`\rho_i = \exp(-\overline{d_{ij}^2})` over its ``clusters`` nearest vectors, including itself.
    :math:`\delta_i` is its distance to the nearest denser vector, or the largest of all distances if there is none.
    The centers are the vectors with the largest :math:`\rho_i \delta_i`. Every vector joins its nearest center.

    Parameters
    ----------
    x : Tensor
        Vectors ``[n, D]``.
    clusters : int
        Number of clusters, from 1 to n.

    Returns
    -------
    Tensor
        ``[n]`` long: index of the center of each vector's cluster. A center belongs to itself. Ties go to the earlier
        vector.

    Notes
    -----
    DPC-kNN as used by SparseVLM (arXiv 2410.04417 and its code), where the number of neighbors equals the number of
    clusters. The authors' code adds noise to the densities to break ties. It is omitted here for reproducibility.
    """
    x = x.float()
    # Exact differences: a matrix product would lose precision for close vectors.
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / x.shape[1] ** 0.5
    nearest = distance.topk(clusters, largest=False).values
    density = (-nearest.square().mean(1)).exp()
    denser = density[None, :] > density[:, None]
    separation = torch.where(denser, distance, distance.max()).amin(1)
    centers = (density * separation).argsort(descending=True, stable=True)[:clusters]
    center_of = centers[distance[:, centers].argmin(1)]
    return center_of.index_put((centers,), centers)
