"""How visual tokens lie in pictures, read off what the encoder of images was given."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vistrim.architectures.spec import ReadShapes
from vistrim.core.layout import Grid, ImageShape, Picture


def unknown(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
    """Each entry of the features is a picture without a known grid."""
    return [ImageShape((Picture(n),)) for n in lengths]


def of_one_grid(grid: Grid) -> ReadShapes:
    """Every picture has the same grid; an entry of the features is one picture or several."""
    rows, columns = grid

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        found = []
        for n in lengths:
            pictures, rest = divmod(n, rows * columns)
            found.append(ImageShape((Picture.of(grid),) * pictures if not rest else (Picture(n),)))
        return found

    return shapes


def one_square_each(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
    """Each entry of the features is a picture with as many rows as columns."""
    found = []
    for n in lengths:
        side = math.isqrt(n)
        found.append(ImageShape((Picture.of((side, side)) if side**2 == n else Picture(n),)))
    return found


def of_squares(pixels: int, patch: int, cell: int, before: int = 0) -> ReadShapes:
    """Pictures are squares, of another size in each call; an entry of the features is one picture or several.

    Parameters
    ----------
    pixels : int
        Along each side of a picture, where the call does not say.
    patch : int
        Pixels along each side of a patch.
    cell : int
        Patches along each side of what becomes a visual token.
    before : int
        Tokens in the tower before a picture's first patch.
    """

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        given = arguments.get("pixel_values")
        side = (pixels if given is None else given.shape[-1]) // patch
        grid, patches = (side // cell, side // cell), before + side**2
        images = of_one_grid(grid)(modality, arguments, lengths)
        return [ImageShape(tuple(replace(p, patches=patches) for p in image.pictures)) for image in images]

    return shapes


def of_latents(latents: int) -> ReadShapes:
    """Every picture has the same number of tokens, which form no grid; an entry of the features may have several."""

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        return [ImageShape((Picture(latents),) * (n // latents)) for n in lengths]

    return shapes


def frames_and_newline(grid: Grid, projected: int) -> ReadShapes:
    """An entry of the features is a video: frames of this grid, and a newline, which belongs to the last of them.

    For each frame, ``projected`` tokens go through the projector.
    """
    frame = Picture(grid[0] * grid[1], grid, projected)
    # With the newline, its tokens form no grid.
    last = Picture(frame.tokens + 1, None, projected)

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        return [ImageShape((frame,) * ((n - 1) // frame.tokens - 1) + (last,)) for n in lengths]

    return shapes
