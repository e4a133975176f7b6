"""Maps from the tokens of a vision tower to visual tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vistrim.architectures.spec import Arrange
from vistrim.core import squares


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

    def arrange(parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        return torch.cat([squares.mean_of_squares(part[:, skip:], cell).flatten(0, 1) for part in parts])

    return arrange


def widened(change: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Apply a function of ``[inputs, tokens, width]`` to values of this shape or ``[inputs, tokens]``."""
    return change(values) if values.dim() == 3 else change(values[..., None])[..., 0]
