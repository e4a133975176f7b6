"""What prompts of many families have in common: words around images, sizes drawn at random, patches in one row."""

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


def patches(grids: Sequence[Grid], *shape: int, generator: torch.Generator) -> Tensor:
    """Pixels ``[patches, *shape]`` of all grids, one behind the other."""
    return noise(sum(t * h * w for t, h, w in grids), *shape, generator=generator)


def token_types(ids: Tensor) -> dict[str, Tensor]:
    """Which tokens are of an image (1) and of a video (2)."""
    return {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}
