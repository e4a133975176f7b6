"""Images downsampled before the vision tower. Their features still fill the places of full-size images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate, pad

from vistrim.core.layout import Grid, ImageShape


@dataclass(frozen=True)
class Shrinking:
    """Downsampling of images of a fixed size.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of patches of the smaller image.
    patch : int
        Side of a patch in pixels.
    tokens : int
        Number of placeholders per image.
    beside : int
        Number of tokens in the vision tower besides the patches, per image.
    """

    grid: Grid
    patch: int
    tokens: int
    beside: int

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Downsample ``pixel_values`` ``[images, channels, height, width]`` by area averaging."""
        pixels: Tensor = given["pixel_values"]
        size = [side * self.patch for side in self.grid]
        # Some devices do not support this in half precision.
        smaller = interpolate(pixels.float(), size, mode="area").to(pixels.dtype)
        return {**given, "pixel_values": smaller, "interpolate_pos_encoding": True}

    def fill(self, output: Any) -> None:
        """Pad the features of each image with zeros, in an output with one tensor or a list."""
        features = output.pooler_output

        def filled(of_image: Tensor) -> Tensor:
            return pad(of_image, (0, 0, 0, self.tokens - of_image.shape[-2]))

        output.pooler_output = filled(features) if isinstance(features, Tensor) else [*map(filled, features)]

    def shape(self, image: ImageShape) -> ImageShape:
        """Return the layout of an image: without a grid, because most of its tokens are unused placeholders."""
        patches = self.grid[0] * self.grid[1]
        return ImageShape(
            tuple(
                replace(picture, grid=None, projected=patches, patches=patches + self.beside)
                for picture in image.pictures
            )
        )
