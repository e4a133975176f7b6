"""Prompts common to many families: words around images, random sizes, patches in one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tests.families.zoo.family import BOS, END, IMAGE, START, VIDEO

T = TypeVar("T")
Grid = tuple[int, int, int]
"""Frames, rows and columns of patches."""


def words(count: int, generator: torch.Generator) -> list[int]:
    """Ids of random text."""
    return torch.randint(3, 140, (count,), generator=generator).tolist()


def noise(*shape: int, generator: torch.Generator) -> Tensor:
    """Random numbers in place of pixels."""
    return torch.randn(*shape, generator=generator)


def drawn(choices: Sequence[T], count: int, generator: torch.Generator) -> list[T]:
    """So many of the choices, each drawn at random."""
    return [choices[i] for i in torch.randint(len(choices), (count,), generator=generator).tolist()]


def around(pieces: Sequence[Sequence[int]], text: Sequence[int]) -> list[int]:
    """A prompt with text before and behind the pieces, and a word behind every second one: pairs of pieces touch."""
    ids = [BOS, *text[:3]]
    for i, piece in enumerate(pieces):
        ids += piece
        if i % 2 == 1:
            ids += text[3:4]
    return ids + list(text[3:])


def framed(count: int, placeholder: int = IMAGE) -> list[int]:
    """Placeholders between a start and an end token."""
    return [START, *[placeholder] * count, END]


def merged(grids: Sequence[Grid], merge: int) -> list[int]:
    """Visual tokens of each grid of patches, of which ``merge`` times ``merge`` become one token."""
    return [t * (h // merge) * (w // merge) for t, h, w in grids]


def patches(grids: Sequence[Grid], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Pixels ``[patches, *shape]`` of all grids, one behind the other."""
    return noise(sum(t * h * w for t, h, w in grids), *shape, generator=generator)


def packed(
    images: int, videos: int, shape: Sequence[int], generator: torch.Generator, lengths: Sequence[int] = (2, 3)
) -> tuple[list[Grid], list[Grid], dict[str, Tensor]]:
    """Grids of images and of videos of these lengths, and what a processor like Qwen2-VL's gives for them.

    Each patch is a tensor of this shape.
    """
    grids = drawn([(1, 8, 8), (1, 4, 8), (1, 8, 4), (1, 4, 4)], images, generator)
    films = drawn([(length, 4, 4) for length in lengths], videos, generator)
    media = {}
    if images:
        media["pixel_values"] = patches(grids, shape, generator)
        media["image_grid_thw"] = torch.tensor(grids)
    if videos:
        media["pixel_values_videos"] = patches(films, shape, generator)
        media["video_grid_thw"] = torch.tensor(films)
    return grids, films, media


def padded(
    sizes: Sequence[tuple[int, int]], most: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Patches of images with these rows and columns ``[images, most, width]``, and the column and row of each.

    Behind an image's last patch there are zeros, and -1 for the column and row.
    """
    pixels, places = torch.zeros(len(sizes), most, width), torch.full((len(sizes), most, 2), -1)
    for i, (rows, columns) in enumerate(sizes):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        pixels[i, : rows * columns] = noise(rows * columns, width, generator=generator).sigmoid()
        places[i, : rows * columns] = torch.stack([x, y], -1).flatten(0, 1)
    return pixels, places


def token_types(ids: Tensor, later: Tensor | None = None) -> dict[str, Tensor]:
    """Which tokens are of an image (1) and of a video (2)."""
    return {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}
