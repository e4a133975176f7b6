"""Locations of the visual tokens of a prompt: grids over its images, if the layout of the model has any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from vistrim.core.layout import Grid, ImageShape

SEPARATOR = "a separator between rows of tokens, which belongs to no part of the image"
NO_GRID = "the tokens form no grid on the image, or it is not known for this model"
MIXED = "tokens of several tiles or frames are interleaved, and their layout is not known for this model"


@dataclass(frozen=True)
class Place:
    """Location of a visual token.

    Attributes
    ----------
    modality, image, part, number
        As in its `TokenGroup`.
    row, column : int or None
        Position in the grid of the group, from the upper left corner. None if the group has no grid.
    reason : str
        Reason for the lack of a row and column. Empty if there is one.
    """

    modality: str
    image: int | None
    part: str
    number: int
    row: int | None
    column: int | None
    reason: str


@dataclass(frozen=True)
class TokenGroup:
    """Visual tokens of one grid, or of a part of an image without a grid.

    Attributes
    ----------
    modality : str
        "image" or "video".
    image : int or None
        Index of the image or video in the sample. None: the vision tower had several inputs, and the model is not told
        whether they are images or tiles of one image (Idefics 3, InternVL). `vistrim.analysis.regions_of` gets this
        from the processor.
    part : str
        "whole" (the image), "tile" or "frame" (one input of the vision tower), "overview" (the whole image, if the
        model joins its tiles), "tiles" (all tiles joined: rows and columns count over all of them), "separators"
        (tokens between rows, which belong to no part of the image) or "picture" (an image or a tile of one).
    number : int
        Index of the tile, frame or other input of the vision tower.
    grid : tuple of int or None
        Rows and columns. None: the tokens form no grid, or it is not known.
    tokens : tuple of int
        The tokens, in raster order if there is a grid.
    cells : tuple of int
        Cell of each token in the grid: ``row * columns + column``. A cell is missing if its token cannot be removed
        because the prompt ends with it. Empty without a grid.
    reason : str
        Reason for the lack of a grid. Empty if there is one.
    """

    modality: str
    image: int | None
    part: str
    number: int
    grid: Grid | None
    tokens: tuple[int, ...]
    cells: tuple[int, ...]
    reason: str = ""


def token_groups(
    modality: str, images: Sequence[ImageShape], tokens: Sequence[int | None], parts_unknown: bool = False
) -> list[TokenGroup]:
    """Group the tokens of a sample's images or videos.

    Parameters
    ----------
    modality : str
        "image" or "video".
    images : sequence of ImageShape
        The images or videos, in prompt order.
    tokens : sequence of int or None
        Visual token at each of their placeholders. None if it cannot be removed.
    parts_unknown : bool
        Whether the model is not told which inputs of the vision tower are tiles of one image.

    Returns
    -------
    list of TokenGroup
        The groups, in prompt order.
    """
    ends = accumulate((image.tokens for image in images), initial=0)
    groups = [
        TokenGroup(modality, number, *group)
        for number, (image, (first, end)) in enumerate(zip(images, pairwise(ends), strict=True))
        for group in _of_image(modality, image, tokens[first:end])
    ]
    if parts_unknown and modality == "image" and len(groups) > 1:
        return [replace(group, image=None, part="picture", number=n) for n, group in enumerate(groups)]
    return groups


_Group = tuple[str, int, Grid | None, tuple[int, ...], tuple[int, ...], str]


def _of_image(modality: str, image: ImageShape, tokens: Sequence[int | None]) -> Iterator[_Group]:
    if image.views:
        left = set(range(len(tokens)))
        for part, view in zip(("overview", "tiles"), image.views, strict=False):
            left.difference_update(view.tokens)
            yield _on_grid(part, 0, view.grid, [tokens[place] for place in view.tokens])
        if left:
            yield _without("separators", 0, [tokens[place] for place in sorted(left)], SEPARATOR)
        return
    if image.picture_of is not None:
        yield _without("whole", 0, tokens, MIXED)
        return
    part = "frame" if modality == "video" else "tile" if len(image.pictures) > 1 else "whole"
    ends = accumulate((picture.tokens for picture in image.pictures), initial=0)
    for number, (picture, (first, end)) in enumerate(zip(image.pictures, pairwise(ends), strict=True)):
        own, grid = tokens[first:end], picture.grid
        if grid is not None and grid[0] * grid[1] == len(own):
            yield _on_grid(part, number, grid, own)
        else:
            yield _without(part, number, own, NO_GRID)


def _on_grid(part: str, number: int, grid: Grid, tokens: Sequence[int | None]) -> _Group:
    cells = tuple(cell for cell, token in enumerate(tokens) if token is not None)
    return part, number, grid, _removable(tokens), cells, ""


def _without(part: str, number: int, tokens: Sequence[int | None], reason: str) -> _Group:
    return part, number, None, _removable(tokens), (), reason


def _removable(tokens: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(token for token in tokens if token is not None)
