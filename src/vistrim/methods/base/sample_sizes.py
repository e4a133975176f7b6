"""Sizes of a prompt and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vistrim.core.layout import Grid


@dataclass(frozen=True)
class SampleSizes:
    """Sizes of one prompt.

    Attributes
    ----------
    text : int
        Number of tokens that are never removed.
    images : tuple of int
        Number of removable visual tokens of each image, tile or frame.
    grids : tuple of (tuple of int or None)
        Rows and columns of each image, tile or frame. None if its tokens form no grid.
    whole : tuple of int
        For each image, tile or frame, the index of the image or video that it belongs to.
    """

    text: int
    images: tuple[int, ...]
    grids: tuple[Grid | None, ...]
    whole: tuple[int, ...]

    @property
    def visual(self) -> int:
        """Number of removable visual tokens of the prompt."""
        return sum(self.images)


def group_pictures(pictures: int, whole: Sequence[int], over: str) -> list[list[int]]:
    """Group the images, tiles or frames of a prompt whose tokens are selected together.

    Parameters
    ----------
    pictures : int
        Number of images, tiles and frames.
    whole : sequence of int
        For each of them, the index of the image or video that it belongs to. If empty, each is an image of its own.
    over : {"tile", "image", "prompt"}
        Scope of one selection: a tile or frame, an image or video, or the whole prompt.

    Returns
    -------
    list of list of int
        Indices of the images, tiles or frames in each group, in ascending order.
    """
    members: dict[int, list[int]] = {}
    for picture in range(pictures):
        key = 0 if over == "prompt" else whole[picture] if over == "image" and whole else picture
        members.setdefault(key, []).append(picture)
    return list(members.values())
