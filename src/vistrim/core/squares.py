"""Squares of patches that become one visual token."""

import math

from torch import Tensor
from torch.nn.functional import avg_pool2d


def mean_of_squares(values: Tensor, cell: int) -> Tensor:
    """Average values over squares of patches.

    Patches at the lower and right border that do not fill a square are dropped.

    Parameters
    ----------
    values : Tensor
        ``[images, patches]`` or ``[images, patches, width]``: values of the patches of square grids.
    cell : int
        Patches along each side of a square.

    Returns
    -------
    Tensor
        ``[images, squares]`` or ``[images, squares, width]``, in the dtype of ``values``.
    """
    if values.dim() == 2:
        return mean_of_squares(values[..., None], cell)[..., 0]
    side = math.isqrt(values.shape[1])
    grid = values.transpose(1, 2).unflatten(2, (side, side)).float()
    return avg_pool2d(grid, cell).flatten(2).transpose(1, 2).to(values.dtype)
