"""Facts that the tower learns to predict for every patch."""

from __future__ import annotations

import torch

from vistrim.reference.lm.rendering import ALL_WIDTHS, COLOR, KIND, LETTER, PRESENT, WIDTH, patch_areas
from vistrim.reference.lm.scenes import SIZES, WIDTHS
from vistrim.reference.scenes import COLORS, COLUMNS, KINDS, LETTERS, ROWS

#: Facts and their values. Index 0 always means background, n the n-th value. Shapes of easy-VQA come last.
PATCH_FACTS: dict[str, tuple[str, ...]] = {
    "kind": (*KINDS, "rectangle"),
    "color": (*COLORS, "black", "gray", "teal", "brown"),
    "size": SIZES,
    "letter": LETTERS,
    "row": ROWS,
    "column": COLUMNS,
}
CLASSES = [len(values) + 1 for values in PATCH_FACTS.values()]
#: Index of an unknown fact: shapes of easy-VQA have no letter, and its questions do not tell their size.
UNKNOWN = -100
#: Facts that identify the object, not only its position.
IDENTITY = ("kind", "color", "size", "letter")

_SIZE_OF_WIDTH = [i for i, widths in enumerate(WIDTHS.values()) for _ in widths]


def area_facts(placed: torch.Tensor) -> torch.Tensor:
    """Facts of the object in each area, ``(B, 9, 6)`` int64 from ``(B, 9, 7)`` placements; 0 where there is none."""
    area = torch.arange(placed.shape[1], device=placed.device).expand(placed.shape[:2])
    size = torch.tensor(_SIZE_OF_WIDTH, device=placed.device)[placed[..., WIDTH]]
    row, column = area // len(COLUMNS), area % len(COLUMNS)
    facts = torch.stack([placed[..., KIND], placed[..., COLOR], size, placed[..., LETTER], row, column], -1) + 1
    return facts * placed[..., PRESENT, None]


def patch_facts(placed: torch.Tensor) -> torch.Tensor:
    """Facts under each patch, ``(B, 576, 6)`` int64; 0 for background."""
    owner = patch_areas(placed)
    facts = area_facts(placed).gather(1, owner.clamp(min=0)[..., None].expand(-1, -1, len(PATCH_FACTS)))
    return facts * (owner >= 0)[..., None]


assert len(ALL_WIDTHS) == len(_SIZE_OF_WIDTH)
