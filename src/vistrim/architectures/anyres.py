"""LLaVA-NeXT, LLaVA-OneVision and LLaVA-NeXT-Video: an overview and a mosaic of tiles per image; pooled videos.

The model's own function crops and downsamples the mosaic and inserts newlines. The function is linear in the features,
so that applying it to markers instead of features reveals the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from vistrim.architectures.arrangements import mean_of_squares, widened
from vistrim.architectures.feature_layers import selected_features
from vistrim.architectures.image_layouts import frames_and_newline, of_one_grid, unknown
from vistrim.architectures.spec import Arrange, Images, ReadShapes
from vistrim.architectures.vit import take_apart
from vistrim.core.layout import ImageShape
from vistrim.core.mosaics import read_mosaic

Arguments = Mapping[str, Any]


def llava_next(model: Any) -> Images:
    """LLaVA-NeXT."""
    return _describe(model, _Mosaics(model.base_model, _of_next), projects_rows=True)


def llava_onevision(model: Any) -> Images:
    """LLaVA-OneVision: frames of a video are downsampled to half their sides, with a newline after the last frame."""
    base, config = model.base_model, model.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    half = -(-side // 2)

    def settings(arguments: Arguments) -> dict[str, Any]:
        return {"vision_aspect_ratio": arguments.get("vision_aspect_ratio") or config.vision_aspect_ratio}

    def arrange(parts: Sequence[Tensor], modality: str, arguments: Arguments) -> Tensor:
        videos, frames = arguments["pixel_values_videos"].shape[:2]
        pooled = torch.cat([widened(base.apply_pooling, part) for part in parts])
        pooled = pooled.reshape(videos, frames * half**2, *pooled.shape[2:])
        newline = pooled.new_full((videos, 1, *pooled.shape[2:]), torch.nan)
        return torch.cat([pooled, newline], 1).flatten(0, 1)

    return _describe(model, _Mosaics(base, settings), frames_and_newline((half, half), projected=side**2), arrange)


def llava_next_video(model: Any) -> Images:
    """LLaVA-NeXT-Video: frames of a video are pooled before the projector."""
    vision, stride = model.config.vision_config, model.config.spatial_pool_stride
    side = vision.image_size // vision.patch_size // stride
    mosaics = _Mosaics(model.base_model, _of_next)
    # Pooled by means, as the config has it, frames go through the projector as any other row.
    by_means = model.config.spatial_pool_mode == "average"
    return _describe(model, mosaics, of_one_grid((side, side)), mean_of_squares(stride), projects_rows=by_means)


def _of_next(arguments: Arguments) -> dict[str, Any]:
    # Used only in the text of a warning.
    return {"vision_feature_select_strategy": "full"}


def _describe(
    model: Any,
    mosaics: _Mosaics,
    video_shapes: ReadShapes = unknown,
    arrange_video: Arrange | None = None,
    projects_rows: bool = False,
) -> Images:
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    features = None if vit is None else selected_features(config, len(vit.blocks))
    if vit is None or features is None or features.skip != vit.has_cls:
        return Images(shapes=unknown)
    skip = features.skip

    def shapes(modality: str, arguments: Arguments, lengths: Sequence[int]) -> list[ImageShape]:
        if modality == "video":
            return video_shapes(modality, arguments, lengths)
        return mosaics.shapes(arguments) if "image_sizes" in arguments else unknown(modality, arguments, lengths)

    def arrange(parts: Sequence[Tensor], modality: str, arguments: Arguments) -> Tensor:
        values = torch.cat([part[:, skip:] for part in parts])
        if modality == "video" and arrange_video is not None:
            return arrange_video([values], modality, arguments)
        return torch.cat(mosaics.pack(values.split(mosaics.tiles(arguments)), arguments))

    text = config.text_config.hidden_size
    return Images(
        shapes=shapes,
        smaller="`image_grid_pinpoints`",
        tower=vit.tower(
            arrange, features.block, features.settings, features.projector(model.base_model) if projects_rows else None
        ),
        cost=vit.cost((vit.hidden * features.layers, text, text)),
    )


@dataclass(frozen=True)
class _Mosaics:
    """Mosaics of the tiles of images.

    Attributes
    ----------
    base : nn.Module
        The base model, which joins the tiles.
    settings : callable
        Returns further arguments of its function, besides the sizes of the images.
    """

    base: Any
    settings: Callable[[Arguments], dict[str, Any]]

    def tiles(self, arguments: Arguments) -> list[int]:
        """Count the tiles of each image, including its overview."""
        config, sizes = self.base.config, arguments["image_sizes"]
        # In OneVision, several images in a prompt have only overviews.
        per_prompt = arguments.get("batch_num_images")
        tiled = [True] * len(sizes) if per_prompt is None else [n == 1 for n in per_prompt for _ in range(n)]
        return [
            image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size) if many else 1
            for size, many in zip(sizes, tiled, strict=True)
        ]

    def pack(self, values: Sequence[Tensor], arguments: Arguments) -> list[Tensor]:
        """Join the values ``[tiles, patches]`` or ``[tiles, patches, width]`` of each image; newlines are NaN."""
        if values[0].dim() == 2:
            return [packed[:, 0] for packed in self.pack([value[..., None] for value in values], arguments)]
        newline = values[0].new_full(values[0].shape[-1:], torch.nan)
        packed, _ = self.base.pack_image_features(
            values, arguments["image_sizes"], image_newline=newline, **self.settings(arguments)
        )
        return list(packed)

    def shapes(self, arguments: Arguments) -> list[ImageShape]:
        """Find the layout of the tokens of each image."""
        vision, tiles = self.base.config.vision_config, self.tiles(arguments)
        side = vision.image_size // vision.patch_size
        # Each patch is marked with the number of its tile.
        marks = torch.eye(max(tiles))[:, None].expand(-1, side**2, -1)
        packed = self.pack([marks[:count] for count in tiles], arguments)
        return [read_mosaic(shares, count, side) for shares, count in zip(packed, tiles, strict=True)]
