"""Pictures of any size, one behind the other in one sequence of a vision tower: their grids, and who becomes what."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.architectures.image_layouts import unknown
from vistrim.architectures.spec import VisionTower
from vistrim.core.layout import ImageShape, Picture


@dataclass(frozen=True)
class Patches:
    """The patches of an image or video.

    Attributes
    ----------
    frames, rows, columns : int
        Their numbers.
    merge : int
        Side of the squares of patches that become one visual token; what does not fill one is left out.
    """

    frames: int
    rows: int
    columns: int
    merge: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the squares of a frame."""
        return self.rows // self.merge, self.columns // self.merge

    @property
    def total(self) -> int:
        """Patches of all frames."""
        return self.frames * self.rows * self.columns


ReadPatches = Callable[[str, Mapping[str, Any]], Sequence[Patches]]
"""Patches of each image or video that was encoded, given the modality and the arguments of the call; nothing where the
features were made elsewhere."""

Sources = Callable[[Patches], Tensor]
"""``[visual tokens, members]`` long: which of an image's (or video's) tokens in the tower each of its visual tokens is
made of; -1: of none."""

ShapeOf = Callable[[Patches], ImageShape]
"""How the visual tokens of an image or video lie."""


def frame_by_frame(patches: Patches) -> ImageShape:
    """Each frame is a picture, and each of its squares a visual token."""
    return ImageShape((Picture.of(patches.grid, patches.rows * patches.columns),) * patches.frames)


@dataclass(frozen=True)
class PackedPictures:
    """Images and videos in one sequence, in which the tower sees each frame by itself.

    Attributes
    ----------
    patches : ReadPatches
        Their sizes.
    sources : Sources
        Where the patches of a visual token are in the tower.
    shape : ShapeOf
        How their visual tokens lie.
    """

    patches: ReadPatches
    sources: Sources
    shape: ShapeOf = frame_by_frame

    def shapes(self, modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        """Read off how the visual tokens lie: see `vistrim.architectures.spec.ReadShapes`."""
        found = self.patches(modality, arguments)
        return [self.shape(patches) for patches in found] if found else unknown(modality, arguments, lengths)

    def sizes(self, modality: str, arguments: Mapping[str, Any]) -> list[int]:
        """Tokens of each picture in the tower: see `vistrim.architectures.spec.ReadSizes`."""
        return [p.rows * p.columns for p in self.patches(modality, arguments) for _ in range(p.frames)]

    def arrange(self, parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        """Take the means: see `vistrim.architectures.spec.Arrange`."""
        values = torch.cat([part.flatten(0, 1) for part in parts])
        found, first = [], 0
        for patches in self.patches(modality, arguments):
            sources = self.sources(patches).to(values.device)
            mean = values[first + sources.clamp(min=0)].mean(1)
            nobody = (sources[:, 0] < 0).view(-1, *[1] * (mean.dim() - 1))
            found.append(mean.masked_fill(nobody, torch.nan))
            first += patches.total
        return torch.cat(found)

    def tower(self, blocks: Iterable[Any], features: nn.Module, attention: str = "attn") -> VisionTower:
        """Describe a tower whose last block's output, behind a norm or not, becomes ``features``."""
        blocks = tuple(blocks)
        return VisionTower(
            blocks=blocks,
            attentions=tuple(getattr(block, attention) for block in blocks),
            feature_block=len(blocks) - 1,
            has_cls=False,
            features=features,
            arrange=self.arrange,
            settings={},
            packed=self.sizes,
        )


class PooledVideos(PackedPictures):
    """Videos whose frames the tower sees together, and whose visual tokens are made of a place in all frames."""

    def sizes(self, modality: str, arguments: Mapping[str, Any]) -> list[int]:
        """Tokens of each image or video in the tower."""
        return [p.total for p in self.patches(modality, arguments)]


def pooled(patches: Patches) -> ImageShape:
    """One picture, however many frames there are."""
    return ImageShape((Picture.of(patches.grid, patches.total),))


def in_rows_of_all_frames(patches: Patches) -> Tensor:
    """Sources where the patches of a frame follow each other row by row, and frames are pooled."""
    by_frame = in_rows(patches).view(patches.frames, -1, patches.merge**2)
    return by_frame.transpose(0, 1).flatten(1)


def by_grid(merge: int) -> ReadPatches:
    """Sizes in ``image_grid_thw`` and ``video_grid_thw`` ``[images or videos, 3]``."""

    def patches(modality: str, arguments: Mapping[str, Any]) -> list[Patches]:
        grids = arguments.get(f"{modality}_grid_thw")
        return [] if grids is None else [Patches(t, h, w, merge) for t, h, w in grids.tolist()]

    return patches


def in_squares(patches: Patches) -> Tensor:
    """Sources where the patches of a visual token follow each other."""
    return torch.arange(patches.total).view(-1, patches.merge**2)


def in_rows(patches: Patches) -> Tensor:
    """Sources where the patches of a frame follow each other row by row."""
    merge, (rows, columns) = patches.merge, patches.grid
    place = torch.arange(patches.total).view(patches.frames, patches.rows, patches.columns)
    place = place[:, : rows * merge, : columns * merge].reshape(-1, rows, merge, columns, merge)
    return place.transpose(2, 3).reshape(-1, merge * merge)


def in_windows(side: int) -> Sources:
    """Sources where the patches of a visual token follow each other, and those of a frame window by window.

    Windows are squares of ``side`` visual tokens, cut off at the right and at the bottom.
    """

    def sources(patches: Patches) -> Tensor:
        rows, columns = patches.grid
        window = torch.arange(rows)[:, None] // side * columns + torch.arange(columns) // side
        # Where each visual token of a frame is among them.
        place = window.flatten().argsort(stable=True).argsort()
        place = place + torch.arange(patches.frames)[:, None] * rows * columns
        return in_squares(patches)[place.flatten()]

    return sources
