"""Maps from the tokens of a vision tower to visual tokens."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vistrim.architectures.spec import Arrange


def one_to_one(skip: int) -> Arrange:
    """Map every token of the tower to a visual token, except for the first ``skip`` of each image, tile or frame."""

    def arrange(parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        return torch.cat([part[:, skip:].flatten(0, 1) for part in parts])

    return arrange


def mean_of_squares(cell: int, skip: int = 0) -> Arrange:
    """Merge squares of ``cell`` x ``cell`` patches to a visual token, by pixel shuffle or pooling.

    Patches at the lower and right border that do not fill a square are dropped.

    Parameters
    ----------
    cell : int
        Patches along each side of a square.
    skip : int
        Number of tokens before the first patch of each image, tile or frame, whose patches form a square grid.
    """

    def merge(values: Tensor) -> Tensor:
        side = math.isqrt(values.shape[1])
        grid = values.transpose(1, 2).unflatten(2, (side, side)).float()
        return avg_pool2d(grid, cell).flatten(2).transpose(1, 2).to(values.dtype)

    def arrange(parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        return torch.cat([widened(merge, part[:, skip:]).flatten(0, 1) for part in parts])

    return arrange


def widened(change: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Apply a function of ``[inputs, tokens, width]`` to values of this shape or ``[inputs, tokens]``."""
    return change(values) if values.dim() == 3 else change(values[..., None])[..., 0]
