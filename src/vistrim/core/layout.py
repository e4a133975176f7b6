"""Layout of the visual tokens of an image or video: its tiles or frames, and their grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True)
class Picture:
    """One input of the vision tower: a whole image, a tile of an image, or a frame of a video.

    Attributes
    ----------
    tokens : int
        Number of visual tokens, including separators between rows.
    grid : tuple of int or None
        Rows and columns of the visual tokens; None if they form no grid or the grid is not known.
    projected : int or None
        Number of tokens that the projector computes, if tokens are dropped or pooled after it; None: ``tokens``.
    patches : int or None
        Number of tokens in the vision tower, if it varies between inputs.
    """

    tokens: int
    grid: Grid | None = None
    projected: int | None = None
    patches: int | None = None

    @staticmethod
    def of(grid: Grid, patches: int | None = None) -> Picture:
        """Describe an image, tile or frame whose visual tokens fill a grid.

        Parameters
        ----------
        grid : tuple of int
            Rows and columns.
        patches : int, optional
            Number of tokens in the vision tower, if it varies between inputs.

        Returns
        -------
        Picture
            The description.
        """
        return Picture(grid[0] * grid[1], grid, patches=patches)


@dataclass(frozen=True)
class View:
    """A grid of visual tokens that covers a whole image, in raster order.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns.
    first : int
        Index of the upper left token among the tokens of the image.
    stride : int
        Tokens from one row to the next. It exceeds the number of columns if each row ends with a separator.
    """

    grid: Grid
    first: int
    stride: int

    @property
    def tokens(self) -> list[int]:
        """List the tokens in raster order.

        Returns
        -------
        list of int
            Indices among the tokens of the image.
        """
        rows, columns = self.grid
        return [self.first + row * self.stride + column for row in range(rows) for column in range(columns)]


@dataclass(frozen=True)
class ImageShape:
    """Layout of the visual tokens of one image or video of a prompt.

    Attributes
    ----------
    pictures : tuple of Picture
        The image, its tiles or its frames, in the order in which the vision tower encodes them.
    picture_of : Tensor or None
        ``[tokens]`` long: index of the tile or frame of each token, if their tokens are interleaved. None: the tokens
        of one follow those of the other.
    views : tuple of View
        Grids over the whole image, if tiles were joined. Empty: the place of each tile is not known.
    """

    pictures: tuple[Picture, ...]
    picture_of: Tensor | None = None
    views: tuple[View, ...] = ()

    @property
    def tokens(self) -> int:
        """Number of visual tokens."""
        return sum(picture.tokens for picture in self.pictures)

    @property
    def numbers(self) -> Tensor:
        """The tile or frame of each token: ``[tokens]`` long, indices into ``pictures``."""
        if self.picture_of is not None:
            return self.picture_of
        tokens = torch.tensor([picture.tokens for picture in self.pictures])
        return torch.arange(len(tokens)).repeat_interleave(tokens)

    def only(self, stays: Tensor) -> ImageShape:
        """Describe the layout after some tokens were removed.

        Parameters
        ----------
        stays : Tensor
            ``[tokens]`` bool, True for tokens that stay.

        Returns
        -------
        ImageShape
            The layout of these tokens. It has no grid unless all tokens stay.
        """
        left = self.numbers[stays]
        counts = left.bincount(minlength=len(self.pictures)).tolist()
        pictures = tuple(
            picture if n == picture.tokens else replace(picture, tokens=n, grid=None)
            for picture, n in zip(self.pictures, counts, strict=True)
        )
        return ImageShape(pictures, left if self.picture_of is not None else None)


def left_of(images: Sequence[ImageShape], stays: Tensor) -> list[ImageShape]:
    """Describe the layout of consecutive images after some tokens were removed.

    Parameters
    ----------
    images : sequence of ImageShape
        The images, in order.
    stays : Tensor
        ``[tokens of all images]`` bool, True for tokens that stay.

    Returns
    -------
    list of ImageShape
        One layout per image.
    """
    pieces = stays.cpu().split([image.tokens for image in images])
    return [image.only(piece) for image, piece in zip(images, pieces, strict=True)]
