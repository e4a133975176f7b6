"""Packed towers of plain blocks as in SigLIP, with different maps from patches to visual tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from vistrim.architectures.image_layouts import unknown
from vistrim.architectures.packed import (
    PackedPictures,
    Patches,
    PooledVideos,
    by_grid,
    in_rows,
    in_rows_of_all_frames,
    in_squares,
    pooled,
)
from vistrim.architectures.spec import Images
from vistrim.core.costs import VisionShape
from vistrim.core.layout import ImageShape, Picture


def paddleocr_vl(model: Any) -> Images:
    """PaddleOCR-VL: the projector merges squares of patches. The tower orders patches row by row."""
    vision, text, base = model.config.vision_config, model.config.text_config, model.base_model
    tower, merged = base.visual.vision_model, _merged(vision, vision.spatial_merge_size)
    pictures = PackedPictures(by_grid(vision.spatial_merge_size), in_rows)
    projector = (merged, merged, text.hidden_size)
    return _images(vision, tower.encoder.layers, "self_attn", tower.post_layernorm, pictures, projector)


def cosmos3_edge(model: Any) -> Images:
    """Cosmos 3 Edge: the projector merges squares of patches. The tower orders patches square by square."""
    config, tower = model.config, model.base_model.visual
    merge = config.vision_config.spatial_merge_size
    pictures = PackedPictures(by_grid(merge), in_squares)
    projector = (_merged(config.vision_config, merge), config.projector_hidden_size, config.text_config.hidden_size)
    return _images(config.vision_config, tower.encoder.layers, "self_attn", tower.post_layernorm, pictures, projector)


def kimi_k25(model: Any) -> Images:
    """Kimi K2.5: the tower, with patches row by row, merges squares of patches and pools the frames of a video."""
    vision, text, base = model.config.vision_config, model.config.text_config, model.base_model
    rows, columns = vision.merge_kernel_size
    if rows != columns:
        return Images(shapes=unknown)
    tower, merged = base.vision_tower, _merged(vision, rows)
    pictures = PooledVideos(by_grid(rows), in_rows_of_all_frames, pooled)
    return _images(vision, tower.layers, "attn", tower.final_layernorm, pictures, (merged, merged, text.hidden_size))


def video_llama_3(model: Any) -> Images:
    """VideoLLaMA 3: squares of patches are downsampled by interpolation. Their size is an argument of each call.

    Tokens of a video that are similar to those of the previous frame are dropped.
    """
    vision, text, tower = model.config.vision_config, model.config.text_config, model.base_model.vision_model

    def patches(modality: str, arguments: Mapping[str, Any]) -> list[Patches]:
        grids, merges = arguments.get(f"{modality}_grid_thw"), arguments.get(f"{modality}_merge_sizes")
        if grids is None or merges is None:
            return []
        return [Patches(t, h, w, merge) for (t, h, w), merge in zip(grids.tolist(), merges.tolist(), strict=True)]

    pictures = PackedPictures(patches, _middle_of_squares)
    projector = (vision.hidden_size, text.hidden_size, text.hidden_size)
    found = _images(vision, tower.encoder.layers, "self_attn", tower.post_layernorm, pictures, projector)
    return replace(found, stays={"video": "video_compression_mask"})


def hunyuan_vl(model: Any) -> Images:
    """HunyuanOCR: convolutions merge squares of patches. Learned tokens follow each row and frame the image."""
    vision, tower = model.config.vision_config, model.base_model.vision_tower
    hidden, merge = vision.hidden_size, vision.spatial_merge_size
    pictures = PackedPictures(by_grid(merge), _framed_rows, _with_frame)
    projector = (_merged(vision, merge), 2 * hidden, 4 * hidden, vision.text_hidden_size)
    return _images(vision, tower.layers, "self_attn", tower.layers[-1], pictures, projector)


def _images(
    vision: Any,
    layers: Sequence[Any],
    attention: str,
    features: Any,
    pictures: PackedPictures,
    projector: tuple[int, ...],
) -> Images:
    blocks = tuple(layers)
    return Images(
        shapes=pictures.shapes,
        tower=pictures.tower(blocks, features, attention),
        cost=VisionShape(
            layers=len(blocks),
            hidden=vision.hidden_size,
            intermediate=vision.intermediate_size,
            tokens=None,
            projector=projector,
        ),
    )


def _merged(vision: Any, merge: int) -> int:
    """Return the width of a square of patches."""
    return int(vision.hidden_size * merge**2)


def _middle_of_squares(patches: Patches) -> Tensor:
    """Sources of visual tokens that are interpolated bilinearly from consecutive squares."""
    before, behind = (patches.merge - 1) // 2, patches.merge // 2
    middle = [row * patches.merge + column for row in (before, behind) for column in (before, behind)]
    return in_squares(patches)[:, middle]


def _framed_rows(patches: Patches) -> Tensor:
    """Sources of visual tokens with no source after each row, and at the start and the end."""
    rows, columns = patches.grid
    squares = pad(in_rows(patches).view(rows, columns, -1), (0, 0, 0, 1), value=-1)
    return pad(squares.flatten(0, 1), (0, 0, 1, 1), value=-1)


def _with_frame(patches: Patches) -> ImageShape:
    rows, columns = patches.grid
    picture = Picture(rows * (columns + 1) + 2, projected=rows * columns, patches=patches.rows * patches.columns)
    return ImageShape((picture,))
