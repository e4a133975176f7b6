"""Groups of visual tokens that one selection is made from: tiles, images or all images of a prompt."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vistrim.methods.base.sample_sizes import group_pictures
from vistrim.methods.base.stage_inputs import InputTokens

Over = Literal["tile", "image", "prompt"]
"""Tokens that are selected together: those of one tile (or frame, or whole image without tiles), those of one
image or video, or those of the whole prompt."""


def check_over(over: str) -> None:
    """Check that a parameter names tokens to select together.

    Parameters
    ----------
    over : str
        Value of the parameter ``over``.

    Raises
    ------
    ValueError
        If it is not "tile", "image" or "prompt".
    """
    if over not in ("tile", "image", "prompt"):
        raise ValueError(f"over={over!r}: must be tile, image or prompt (among whose tokens is chosen together)")


@dataclass(frozen=True)
class Unit:
    """Tokens of a sample that are selected together.

    Attributes
    ----------
    where : Tensor
        ``[n]`` long: rows of the tokens, in the order of the prompt.
    n : int
        Number of tokens.
    pictures : tuple of int
        Numbers of the images, tiles or frames (see `InputTokens.images`) that they belong to.
    images : int
        Number of images by which a number of tokens per image is multiplied.
    """

    where: Tensor
    n: int
    pictures: tuple[int, ...]
    images: int


def units(tokens: InputTokens, sample: int, over: Over) -> list[Unit]:
    """Divide the removable tokens of a sample into groups that are selected together.

    Groups without tokens are left out. An image has none if it is a tile of padding only, or if it must stay.

    Parameters
    ----------
    tokens : InputTokens
        The prompt before decoder layer 0.
    sample : int
        Index of the sample in the batch.
    over : {"tile", "image", "prompt"}
        Tokens that are selected together.

    Returns
    -------
    list of Unit
        The groups.
    """
    sizes = tokens.images[sample]
    pictures = range(len(sizes))
    # The number of rows is known, so that no device synchronization is needed.
    rows = (~tokens.visual[sample]).to(torch.uint8).argsort(stable=True)[: sum(sizes)]
    groups = group_pictures(len(sizes), tokens.whole[sample] if tokens.whole else (), over)
    if len(groups) > 1:
        number_of = {picture: number for number, group in enumerate(groups) for picture in group}
        unit_of = torch.tensor([number_of[picture] for picture in pictures], device=rows.device)
        rows = rows[unit_of[tokens.image_of[sample, rows]].argsort(stable=True)]
    of_groups = [sum(sizes[picture] for picture in group) for group in groups]
    images = images_of(tokens, sample) if over == "prompt" else 1
    return [
        Unit(where, n, tuple(group), images)
        for where, n, group in zip(rows.split(of_groups), of_groups, groups, strict=True)
        if n
    ]


def whole_image(tokens: InputTokens, sample: int, unit: Unit) -> Tensor:
    """Find all removable tokens of the image that a unit belongs to.

    Parameters
    ----------
    tokens : InputTokens
        The prompt before decoder layer 0.
    sample : int
        Index of the sample in the batch.
    unit : Unit
        The unit.

    Returns
    -------
    Tensor
        ``[m]`` long: rows of the tokens.
    """
    images = units(tokens, sample, "image")
    own = next((image for image in images if set(unit.pictures) < set(image.pictures)), unit)
    return own.where


def images_of(tokens: InputTokens, sample: int) -> int:
    """Count the images and videos of a sample.

    Parameters
    ----------
    tokens : InputTokens
        The prompt before decoder layer 0.
    sample : int
        Index of the sample in the batch.

    Returns
    -------
    int
        Number of images and videos.
    """
    return len(set(tokens.whole[sample])) if tokens.whole else len(tokens.images[sample])
