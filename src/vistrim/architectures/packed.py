"""Images of any size packed into one sequence of a vision tower: their grids, and the sources of visual tokens."""

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
        Number of frames, and of rows and columns of patches.
    merge : int
        Side of the square of patches that becomes one visual token. Patches that do not fill a square are dropped.
    """

    frames: int
    rows: int
    columns: int
    merge: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of squares per frame."""
        return self.rows // self.merge, self.columns // self.merge

    @property
    def total(self) -> int:
        """Number of patches of all frames."""
        return self.frames * self.rows * self.columns


ReadPatches = Callable[[str, Mapping[str, Any]], Sequence[Patches]]
"""Returns the patches of each encoded image or video, given the modality and the arguments of the call. Empty if the
features were computed elsewhere."""

Sources = Callable[[Patches], Tensor]
"""Returns ``[visual tokens, members]`` long: the tower tokens from which each visual token of an image or video is
computed; -1: none."""

ShapeOf = Callable[[Patches], ImageShape]
"""Returns the layout of the visual tokens of an image or video."""


def frame_by_frame(patches: Patches) -> ImageShape:
    """Describe frames in which each square is a visual token."""
    return ImageShape((Picture.of(patches.grid, patches.rows * patches.columns),) * patches.frames)


@dataclass(frozen=True)
class PackedPictures:
    """Images and videos packed into one sequence, with separate attention per frame.

    Attributes
    ----------
    patches : ReadPatches
        Sizes of the images and videos.
    sources : Sources
        Tower tokens of each visual token.
    shape : ShapeOf
        Layout of the visual tokens.
    """

    patches: ReadPatches
    sources: Sources
    shape: ShapeOf = frame_by_frame

    def shapes(self, modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        """Find the layout of the visual tokens; see `vistrim.architectures.spec.ReadShapes`."""
        found = self.patches(modality, arguments)
        return [self.shape(patches) for patches in found] if found else unknown(modality, arguments, lengths)

    def sizes(self, modality: str, arguments: Mapping[str, Any]) -> list[int]:
        """Return the sequence lengths in the tower; see `vistrim.architectures.spec.ReadSizes`."""
        return [p.rows * p.columns for p in self.patches(modality, arguments) for _ in range(p.frames)]

    def arrange(self, parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        """Average over the sources; see `vistrim.architectures.spec.Arrange`."""
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
        """Describe a tower whose last block, possibly followed by a norm, computes ``features``."""
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
    """Videos with joint attention over all frames, and visual tokens pooled over all frames."""

    def sizes(self, modality: str, arguments: Mapping[str, Any]) -> list[int]:
        """Return the number of tower tokens of each image or video."""
        return [p.total for p in self.patches(modality, arguments)]


def pooled(patches: Patches) -> ImageShape:
    """Describe a video pooled to a single frame."""
    return ImageShape((Picture.of(patches.grid, patches.total),))


def in_rows_of_all_frames(patches: Patches) -> Tensor:
    """Sources for patches ordered row by row within frames that are pooled."""
    by_frame = in_rows(patches).view(patches.frames, -1, patches.merge**2)
    return by_frame.transpose(0, 1).flatten(1)


def by_grid(merge: int) -> ReadPatches:
    """Read sizes from ``image_grid_thw`` and ``video_grid_thw`` ``[images or videos, 3]``."""

    def patches(modality: str, arguments: Mapping[str, Any]) -> list[Patches]:
        grids = arguments.get(f"{modality}_grid_thw")
        return [] if grids is None else [Patches(t, h, w, merge) for t, h, w in grids.tolist()]

    return patches


def in_squares(patches: Patches) -> Tensor:
    """Sources for patches ordered square by square."""
    return torch.arange(patches.total).view(-1, patches.merge**2)


def in_rows(patches: Patches) -> Tensor:
    """Sources for patches ordered row by row within a frame."""
    merge, (rows, columns) = patches.merge, patches.grid
    place = torch.arange(patches.total).view(patches.frames, patches.rows, patches.columns)
    place = place[:, : rows * merge, : columns * merge].reshape(-1, rows, merge, columns, merge)
    return place.transpose(2, 3).reshape(-1, merge * merge)


def in_windows(side: int) -> Sources:
    """Sources for patches ordered window by window within a frame, and square by square within a window.

    Windows are squares of ``side`` visual tokens, cropped at the right and at the bottom.
    """

    def sources(patches: Patches) -> Tensor:
        rows, columns = patches.grid
        window = torch.arange(rows)[:, None] // side * columns + torch.arange(columns) // side
        # Position of each visual token of a frame in this order.
        place = window.flatten().argsort(stable=True).argsort()
        place = place + torch.arange(patches.frames)[:, None] * rows * columns
        return in_squares(patches)[place.flatten()]

    return sources
