"""Selection among the visual tokens of one image, on tensors alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from vistrim.core.applying import apply_to_visual
from vistrim.core.layout import ImageShape
from vistrim.core.selection import Selection
from vistrim.core.squares import mean_of_squares
from vistrim.errors import MethodError
from vistrim.methods import InputTokens, PerImage, VisionTokens
from vistrim.methods.base.sample_sizes import SampleSizes


def count(method: PerImage, shapes: Sequence[ImageShape]) -> int:
    """Compute how many tokens of an image stay.

    Parameters
    ----------
    method : PerImage
        The method.
    shapes : sequence of ImageShape
        Layout of the visual tokens of the image. Several if the model is given the tiles of an image like images, so
        that each counts as an image of its own under `vistrim.trim`.

    Returns
    -------
    int
        Number of tokens.

    Raises
    ------
    MethodError
        If the method does not provide the number.
    """
    return method.input_count(
        SampleSizes(
            text=0,
            images=tuple(picture.tokens for shape in shapes for picture in shape.pictures),
            grids=tuple(picture.grid for shape in shapes for picture in shape.pictures),
            whole=_whole(shapes),
        )
    )


def pick(method: PerImage, shapes: Sequence[ImageShape], embeddings: Tensor, vision: VisionTokens | None) -> Tensor:
    """Reduce the visual tokens of an image to those that stay.

    Parameters
    ----------
    method, shapes, embeddings, vision
        As in `choose`.

    Returns
    -------
    Tensor
        ``[count(method, shapes), hidden]``.

    Raises
    ------
    MethodError
        As in `choose`.
    """
    return apply_to_visual(embeddings[None], choose(method, shapes, embeddings, vision))[0]


def choose(
    method: PerImage, shapes: Sequence[ImageShape], embeddings: Tensor, vision: VisionTokens | None
) -> Selection:
    """Choose among the visual tokens of an image.

    Parameters
    ----------
    method : PerImage
        The method.
    shapes : sequence of ImageShape
        As in `count`.
    embeddings : Tensor
        ``[tokens, hidden]``: input of the decoder.
    vision : VisionTokens or None
        Outputs of the vision tower for these tokens, in their order. ``source`` is ignored.

    Returns
    -------
    Selection
        The tokens that stay, in a batch of one sample of visual tokens only.

    Raises
    ------
    MethodError
        If the method returns an invalid selection, or another number of tokens than it has told.
    """
    rows = torch.arange(len(embeddings), device=embeddings.device)[None]
    everything = torch.ones_like(rows, dtype=torch.bool)
    pictures = [picture for shape in shapes for picture in shape.pictures]
    firsts = accumulate((len(shape.pictures) for shape in shapes), initial=0)
    numbers = torch.cat([first + shape.numbers for first, shape in zip(firsts, shapes, strict=False)])
    selection = method.select_input(
        InputTokens(
            embeddings=embeddings[None],
            visual=everything,
            images=(tuple(picture.tokens for picture in pictures),),
            grids=(tuple(picture.grid for picture in pictures),),
            image_of=numbers.to(embeddings.device)[None],
            vision=None if vision is None else replace(vision, source=rows),
            whole=(_whole(shapes),),
        )
    ) or Selection(everything, (len(embeddings),))
    if (kept := selection.counts[0]) != (expected := count(method, shapes)):
        raise MethodError(f"{method.name} keeps {kept} tokens of an image, but its `count` returns {expected}")
    return selection


def _whole(shapes: Sequence[ImageShape]) -> tuple[int, ...]:
    return tuple(number for number, shape in enumerate(shapes) for _ in shape.pictures)


def arranged(tiles: Sequence[VisionTokens], source: Tensor) -> VisionTokens:
    """Arrange the values of the tiles of an image by visual token.

    Parameters
    ----------
    tiles : sequence of VisionTokens
        Values of the patches of each tile, at least one.
    source : Tensor
        ``[tokens]`` long: number of the patch that a token is made of, among those of all tiles. -1: a separator.

    Returns
    -------
    VisionTokens
        Values of the tokens. NaN for separators.
    """
    newline = source < 0

    def of_tokens(parts: list[Tensor]) -> Tensor:
        patches = torch.cat(parts)
        rows = patches[source.clamp(min=0).to(patches.device)]
        return rows.masked_fill(newline.to(rows.device).view(-1, *[1] * (rows.dim() - 1)), torch.nan)

    return _joined(tiles, of_tokens)


def squared(tiles: Sequence[VisionTokens], cell: int) -> VisionTokens:
    """Average the values of the tiles of an image over squares of patches, each of which becomes a visual token.

    Parameters
    ----------
    tiles : sequence of VisionTokens
        Values of the patches of each tile, which form a square grid, at least one.
    cell : int
        Patches along each side of a square.

    Returns
    -------
    VisionTokens
        Values of the tokens.
    """
    return _joined(tiles, lambda parts: torch.cat([mean_of_squares(part[None], cell)[0] for part in parts]))


def merged(patches: VisionTokens, members: int, order: Tensor) -> VisionTokens:
    """Average the values of the patches of an image over groups that follow each other.

    Parameters
    ----------
    patches : VisionTokens
        Values of the patches.
    members : int
        Patches of a group.
    order : Tensor
        ``[tokens]`` long: the group that becomes each visual token.

    Returns
    -------
    VisionTokens
        Values of the tokens.
    """

    def of_tokens(parts: list[Tensor]) -> Tensor:
        return parts[0].unflatten(0, (-1, members)).mean(1)[order.to(parts[0].device)]

    return _joined([patches], of_tokens)


def _joined(tiles: Sequence[VisionTokens], join: Callable[[list[Tensor]], Tensor]) -> VisionTokens:
    first = tiles[0]
    classes = [tile.class_states for tile in tiles if tile.class_states is not None]
    return replace(
        first,
        attention={block: join([tile.attention[block] for tile in tiles]) for block in first.attention},
        features=join([tile.features for tile in tiles]),
        queries={block: join([tile.queries[block] for tile in tiles]) for block in first.queries},
        keys={block: join([tile.keys[block] for tile in tiles]) for block in first.keys},
        class_states=join(classes) if classes else None,
    )
