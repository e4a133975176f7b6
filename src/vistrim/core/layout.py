"""How the visual tokens of an image or video lie: the pictures that the vision tower saw, and their grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True)
class Picture:
    """What the vision tower saw by itself: a whole image, a tile of one, or a frame of a video.

    Attributes
    ----------
    tokens : int
        Its visual tokens, separators between its rows included.
    grid : tuple of int or None
        Their rows and columns; None: they form no grid, or it is not known.
    projected : int or None
        Tokens that the projector computes for it, where some of them are dropped or shrunk behind it; None: ``tokens``.
    patches : int or None
        Its tokens in the vision tower, where this differs from picture to picture.
    """

    tokens: int
    grid: Grid | None = None
    projected: int | None = None
    patches: int | None = None

    @staticmethod
    def of(grid: Grid, patches: int | None = None) -> Picture:
        """A picture whose tokens fill a grid."""
        return Picture(grid[0] * grid[1], grid, patches=patches)


@dataclass(frozen=True)
class View:
    """Visual tokens that lie over a whole image, row by row.

    Attributes
    ----------
    grid : tuple of int
        Their rows and columns.
    first : int
        The token in the upper left corner, among those of the image.
    stride : int
        Tokens from one row to the next: more than columns where each row has a separator behind it.
    """

    grid: Grid
    first: int
    stride: int

    @property
    def tokens(self) -> list[int]:
        """The tokens in raster order."""
        rows, columns = self.grid
        return [self.first + row * self.stride + column for row in range(rows) for column in range(columns)]


@dataclass(frozen=True)
class ImageShape:
    """The visual tokens of one image or video of a prompt.

    Attributes
    ----------
    pictures : tuple of Picture
        In the order in which the vision tower saw them.
    picture_of : Tensor or None
        ``[tokens]`` long: the picture of each token, where the tokens of several are mixed; None: one picture follows
        the other.
    views : tuple of View
        How they lie over the image, where tiles were put together; empty: where each picture lies is not known.
    """

    pictures: tuple[Picture, ...]
    picture_of: Tensor | None = None
    views: tuple[View, ...] = ()

    @property
    def tokens(self) -> int:
        """Visual tokens of all pictures."""
        return sum(picture.tokens for picture in self.pictures)

    @property
    def numbers(self) -> Tensor:
        """The picture of each token, ``[tokens]`` long."""
        if self.picture_of is not None:
            return self.picture_of
        tokens = torch.tensor([picture.tokens for picture in self.pictures])
        return torch.arange(len(tokens)).repeat_interleave(tokens)

    def only(self, stays: Tensor) -> ImageShape:
        """What is left where the tokens with False in ``stays`` ``[tokens]`` are gone: no grid, unless all stay."""
        left = self.numbers[stays]
        counts = left.bincount(minlength=len(self.pictures)).tolist()
        pictures = tuple(
            picture if n == picture.tokens else replace(picture, tokens=n, grid=None)
            for picture, n in zip(self.pictures, counts, strict=True)
        )
        return ImageShape(pictures, left if self.picture_of is not None else None)


def left_of(images: Sequence[ImageShape], stays: Tensor) -> list[ImageShape]:
    """The shapes of images one behind the other of which only some tokens, by a mask over all of them, are left."""
    pieces = stays.cpu().split([image.tokens for image in images])
    return [image.only(piece) for image, piece in zip(images, pieces, strict=True)]
