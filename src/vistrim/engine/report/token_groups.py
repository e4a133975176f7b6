"""Where the visual tokens of a prompt lie: on grids over its images, as far as the model's arrangement has any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from vistrim.core.layout import Grid, ImageShape
from vistrim.engine.report.trace import TokenGroup

SEPARATOR = "a separator between rows of tokens, which shows nothing"
NO_GRID = "the tokens form no grid on the image, or none that is known for this model"
MIXED = "tokens of several tiles or frames are mixed, and their arrangement is not known for this model"


def token_groups(
    modality: str, images: Sequence[ImageShape], tokens: Sequence[int | None], parts_unknown: bool = False
) -> list[TokenGroup]:
    """Sort the tokens of a sample's images (or videos) into groups.

    Parameters
    ----------
    modality : str
        "image" or "video".
    images : sequence of ImageShape
        In prompt order.
    tokens : sequence of int or None
        The visual token at each of their places in the prompt; None where it cannot be removed.
    parts_unknown : bool
        Whether a picture may be a tile of an image, which nothing tells the model.
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
