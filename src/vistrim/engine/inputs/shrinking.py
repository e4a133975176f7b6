"""Images that are shrunk before the vision tower, whose features still fill the places of whole ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate, pad

from vistrim.core.layout import Grid, ImageShape


@dataclass(frozen=True)
class Shrinking:
    """What is done to images of one size.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of patches of a smaller image.
    patch : int
        Pixels along each side of a patch.
    tokens : int
        Places of an image.
    beside : int
        Tokens of a picture in the tower besides its patches.
    """

    grid: Grid
    patch: int
    tokens: int
    beside: int

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of an encoding with smaller pixels ``[pictures, channels, height, width]``, by area averaging."""
        pixels: Tensor = given["pixel_values"]
        size = [side * self.patch for side in self.grid]
        # Not all devices average in half precision.
        smaller = interpolate(pixels.float(), size, mode="area").to(pixels.dtype)
        return {**given, "pixel_values": smaller, "interpolate_pos_encoding": True}

    def fill(self, output: Any) -> None:
        """Put zeros behind the features of each picture, of an output with a list of them or all in one."""
        features = output.pooler_output

        def filled(of_picture: Tensor) -> Tensor:
            return pad(of_picture, (0, 0, 0, self.tokens - of_picture.shape[-2]))

        output.pooler_output = filled(features) if isinstance(features, Tensor) else [*map(filled, features)]

    def shape(self, image: ImageShape) -> ImageShape:
        """How the tokens of an image lie: in no grid, and most of them are places that are not used."""
        patches = self.grid[0] * self.grid[1]
        return ImageShape(
            tuple(
                replace(picture, grid=None, projected=patches, patches=patches + self.beside)
                for picture in image.pictures
            )
        )
