"""ERNIE 4.5 VL: a packed tower. After its norm, 2 x 2 patches are merged, and in videos also pairs of frames."""

from typing import Any

import torch
from torch import Tensor

from vistrim.architectures.packed import PackedPictures, Patches, by_grid, frame_by_frame, in_squares
from vistrim.architectures.spec import Images
from vistrim.core.layout import ImageShape


def images(model: Any) -> Images:
    """Describe the processing of images and videos in an ERNIE 4.5 VL model.

    A `Picture` of a video stands for two frames, which the tower encodes separately.
    """
    vision, tower = model.config.vision_config, model.base_model.vision_tower
    pictures = PackedPictures(by_grid(vision.spatial_merge_size), _in_pairs, _pair_by_pair)
    blocks = tuple(tower.blocks)
    return Images(
        shapes=pictures.shapes,
        tower=pictures.tower(blocks, tower.ln),
    )


def _in_pairs(patches: Patches) -> Tensor:
    """Sources of visual tokens that merge the same square in each pair of frames."""
    squares = in_squares(patches)
    if patches.frames == 1:
        return squares
    of_frames = squares.view(patches.frames, -1, squares.shape[1])
    return torch.cat([of_frames[0::2], of_frames[1::2]], -1).flatten(0, 1)


def _pair_by_pair(patches: Patches) -> ImageShape:
    shape = frame_by_frame(patches)
    return shape if patches.frames == 1 else ImageShape(shape.pictures[::2])
