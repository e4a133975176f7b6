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
        Tokens that are never removed.
    images : tuple of int
        Removable visual tokens of each image, tile or frame.
    grids : tuple of (tuple of int or None)
        Rows and columns of each; None if the tokens form no grid.
    whole : tuple of int
        For each image, tile or frame, the number of the image or video that it belongs to.
    """

    text: int
    images: tuple[int, ...]
    grids: tuple[Grid | None, ...]
    whole: tuple[int, ...]

    @property
    def visual(self) -> int:
        """Removable visual tokens."""
        return sum(self.images)


def group_pictures(pictures: int, whole: Sequence[int], over: str) -> list[list[int]]:
    """Group the images, tiles or frames of a prompt among which tokens are chosen together.

    Parameters
    ----------
    pictures : int
        Their number.
    whole : sequence of int
        See `SampleSizes`.
    over : {"tile", "image", "prompt"}
        Among which tokens.

    Returns
    -------
    list of list of int
        Their numbers.
    """
    members: dict[int, list[int]] = {}
    for picture in range(pictures):
        key = 0 if over == "prompt" else whole[picture] if over == "image" and whole else picture
        members.setdefault(key, []).append(picture)
    return list(members.values())
