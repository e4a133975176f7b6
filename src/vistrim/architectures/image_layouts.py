"""Layouts of visual tokens, derived from the arguments of the image encoder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vistrim.architectures.spec import ReadShapes
from vistrim.core.layout import Grid, ImageShape, Picture


def unknown(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
    """Each entry of the features is an image, tile or frame without a known grid."""
    return [ImageShape((Picture(n),)) for n in lengths]


def of_one_grid(grid: Grid) -> ReadShapes:
    """All images, tiles or frames have the same grid. An entry of the features has one or several of them."""
    rows, columns = grid

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        found = []
        for n in lengths:
            pictures, rest = divmod(n, rows * columns)
            found.append(ImageShape((Picture.of(grid),) * pictures if not rest else (Picture(n),)))
        return found

    return shapes


def one_square_each(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
    """Each entry of the features is an image, tile or frame with a square grid."""
    found = []
    for n in lengths:
        side = math.isqrt(n)
        found.append(ImageShape((Picture.of((side, side)) if side**2 == n else Picture(n),)))
    return found


def of_squares(pixels: int, patch: int, cell: int, before: int = 0) -> ReadShapes:
    """Images, tiles or frames are squares whose size varies between calls. An entry has one or several of them.

    Parameters
    ----------
    pixels : int
        Default side of an image, tile or frame in pixels.
    patch : int
        Pixels along each side of a patch.
    cell : int
        Patches along each side of the square that becomes a visual token.
    before : int
        Number of tokens in the tower before the first patch.
    """

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        given = arguments.get("pixel_values")
        side = (pixels if given is None else given.shape[-1]) // patch
        grid, patches = (side // cell, side // cell), before + side**2
        images = of_one_grid(grid)(modality, arguments, lengths)
        return [ImageShape(tuple(replace(p, patches=patches) for p in image.pictures)) for image in images]

    return shapes


def of_latents(latents: int) -> ReadShapes:
    """All images or tiles have the same number of tokens without a grid. An entry of the features may have several."""

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        return [ImageShape((Picture(latents),) * (n // latents)) for n in lengths]

    return shapes


def frames_and_newline(grid: Grid, projected: int) -> ReadShapes:
    """An entry of the features is a video: frames with this grid, and a newline that belongs to the last frame.

    The projector computes ``projected`` tokens per frame.
    """
    frame = Picture(grid[0] * grid[1], grid, projected)
    # With the newline, the tokens of the last frame form no grid.
    last = Picture(frame.tokens + 1, None, projected)

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        return [ImageShape((frame,) * ((n - 1) // frame.tokens - 1) + (last,)) for n in lengths]

    return shapes
