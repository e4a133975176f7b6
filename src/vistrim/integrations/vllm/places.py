"""Positions of visual tokens that are a time, a row and a column (M-RoPE), on tensors alone."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vistrim.core.applying import apply_to_visual
from vistrim.core.layout import Grid, ImageShape, Picture
from vistrim.integrations.vllm.picking import choose
from vistrim.methods import PerImage, VisionTokens

MARKS, BASE = 4, 256
"""Numbers for the row and the column of a token: two digits each, which are exact in every floating-point dtype."""


def marks_of(rows: int, columns: int) -> Tensor:
    """Compute the marks of the tokens of a grid.

    Parameters
    ----------
    rows, columns : int
        Size of the grid.

    Returns
    -------
    Tensor
        ``[rows * columns, MARKS]`` long.
    """
    row, column = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
    return torch.stack([row // BASE, row % BASE, column // BASE, column % BASE], 1)


def shape_of(rows: int, columns: int) -> ImageShape:
    """Describe the visual tokens of an image that is one grid."""
    return ImageShape((Picture.of((rows, columns)),))


def pick_with_marks(
    method: PerImage | None, grid: Grid, embeddings: Tensor, hidden: int, vision: VisionTokens | None
) -> Tensor:
    """Reduce the visual tokens of an image to those that stay, and mark each with its row and column.

    Parameters
    ----------
    method : PerImage or None
        The method. None: all tokens stay.
    grid : tuple of int
        Rows and columns of the image.
    embeddings : Tensor
        ``[tokens, width]``: input of the decoder, and behind it features for further layers (DeepStack).
    hidden : int
        Width of the input of the decoder.
    vision : VisionTokens or None
        As in `choose`.

    Returns
    -------
    Tensor
        ``[kept, width + MARKS]``. A token that absorbs others has the mean of their features. A token whose embedding
        the method replaces has its own features.
    """
    marks = marks_of(*grid).to(embeddings)
    if method is None:
        return torch.cat([embeddings, marks], 1)
    main, features = embeddings[:, :hidden], embeddings[:, hidden:]
    selection = choose(method, [shape_of(*grid)], main, vision)
    averaged = replace(selection, hidden=None)
    parts = (main, selection), (features, averaged), (marks, replace(averaged, merge_into=None))
    return torch.cat([apply_to_visual(part[None], how)[0] for part, how in parts], 1)


def moved(positions: Tensor, marks: Tensor) -> Tensor:
    """Compute the positions of visual tokens.

    Parameters
    ----------
    positions : Tensor
        ``[3, rows]`` long. The time is that of the image. The others are ignored, so that this may be repeated.
    marks : Tensor
        ``[rows, MARKS]``: see `marks_of`.

    Returns
    -------
    Tensor
        ``[3, rows]`` long.
    """
    row_high, row, column_high, column = marks.to(positions).T
    time = positions[0]
    return torch.stack([time, time + row_high * BASE + row, time + column_high * BASE + column])


def places_of(tokens: int, images: Sequence[tuple[int, int, int]]) -> tuple[Tensor, int]:
    """Compute the positions of a prompt in which all tokens of an image have the first position of the image.

    Parameters
    ----------
    tokens : int
        Length of the prompt.
    images : sequence of tuple of int
        For each image, in order: its first token, its number of tokens, and the positions that it occupies.

    Returns
    -------
    positions : Tensor
        ``[3, tokens]`` long.
    delta : int
        Difference between the position and the index of the tokens that are generated.
    """
    found: list[int] = []
    position = 0
    for first, length, occupied in images:
        text = first - len(found)
        found += [*range(position, position + text), *[position + text] * length]
        position += text + occupied
    end = position + tokens - len(found)
    found += range(position, end)
    return torch.tensor(found).repeat(3, 1), end - tokens
