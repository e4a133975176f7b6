"""Selection among the visual tokens of one image, on tensors alone."""

from dataclasses import replace

import torch
from torch import Tensor

from vistrim.core.applying import apply_to_visual
from vistrim.core.layout import ImageShape
from vistrim.errors import MethodError
from vistrim.methods import InputTokens, PerImage, VisionTokens
from vistrim.methods.base.sample_sizes import SampleSizes


def count(method: PerImage, shape: ImageShape) -> int:
    """Compute how many tokens of an image stay.

    Parameters
    ----------
    method : PerImage
        The method.
    shape : ImageShape
        Layout of the visual tokens of the image.

    Returns
    -------
    int
        Number of tokens.

    Raises
    ------
    MethodError
        If the method does not provide the number.
    """
    pictures = shape.pictures
    return method.input_count(
        SampleSizes(
            text=0,
            images=tuple(picture.tokens for picture in pictures),
            grids=tuple(picture.grid for picture in pictures),
            whole=(0,) * len(pictures),
        )
    )


def pick(method: PerImage, shape: ImageShape, embeddings: Tensor, vision: VisionTokens | None) -> Tensor:
    """Reduce the visual tokens of an image to those that stay.

    Parameters
    ----------
    method : PerImage
        The method.
    shape : ImageShape
        Layout of the visual tokens of the image.
    embeddings : Tensor
        ``[tokens, hidden]``: input of the decoder.
    vision : VisionTokens or None
        Outputs of the vision tower for these tokens, in their order. ``source`` is ignored.

    Returns
    -------
    Tensor
        ``[count(method, shape), hidden]``.

    Raises
    ------
    MethodError
        If the method returns an invalid selection, or another number of tokens than it has told.
    """
    rows = torch.arange(len(embeddings), device=embeddings.device)[None]
    selection = method.select_input(
        InputTokens(
            embeddings=embeddings[None],
            visual=torch.ones_like(rows, dtype=torch.bool),
            images=(tuple(picture.tokens for picture in shape.pictures),),
            grids=(tuple(picture.grid for picture in shape.pictures),),
            image_of=shape.numbers.to(embeddings.device)[None],
            vision=None if vision is None else replace(vision, source=rows),
            whole=((0,) * len(shape.pictures),),
        )
    )
    picked = embeddings if selection is None else apply_to_visual(embeddings[None], selection)[0]
    if len(picked) != (expected := count(method, shape)):
        raise MethodError(f"{method.name} keeps {len(picked)} tokens of an image, but counts {expected}: mend its count")
    return picked
