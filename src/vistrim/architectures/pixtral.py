"""Pixtral's tower with all images in one sequence: in Mistral 3 and LightOnOCR (merged squares), and in LLaVA."""

from collections.abc import Mapping
from typing import Any

import torch

from vistrim.architectures.feature_layers import selected_features
from vistrim.architectures.image_layouts import unknown
from vistrim.architectures.packed import PackedPictures, Patches, ReadPatches, in_rows
from vistrim.architectures.spec import Images, VisionTower
from vistrim.core.costs import VisionShape


def images(model: Any) -> Images:
    """Describe the processing of images in a model with Pixtral's tower."""
    config, base = model.config, model.base_model
    vision, text = config.vision_config, config.text_config
    features = selected_features(config, vision.num_hidden_layers)
    # "default" drops the first token as the class token, which this tower does not have.
    drops = getattr(config, "vision_feature_select_strategy", None) == "default"
    if vision.model_type != "pixtral" or features is None or drops:
        return Images(shapes=unknown)
    merge = getattr(config, "spatial_merge_size", 1)
    pictures = PackedPictures(_by_size(vision.patch_size, merge), in_rows)
    tower = base.vision_encoder if hasattr(base, "vision_encoder") else base.vision_tower
    blocks = tuple(tower.transformer.layers)
    merger = (vision.hidden_size * merge**2,) if hasattr(config, "spatial_merge_size") else ()
    return Images(
        shapes=pictures.shapes,
        tower=VisionTower(
            blocks=blocks,
            attentions=tuple(block.attention for block in blocks),
            feature_block=features.block,
            has_cls=False,
            features=blocks[features.block],
            arrange=pictures.arrange,
            settings=features.settings,
            packed=pictures.sizes,
        ),
        cost=VisionShape(
            layers=vision.num_hidden_layers,
            hidden=vision.hidden_size,
            intermediate=vision.intermediate_size,
            tokens=None,
            projector=(*merger, vision.hidden_size * features.layers, text.hidden_size, text.hidden_size),
            gated=True,
            # FlashAttention gets the image borders. Other kernels compute the whole attention matrix.
            joint="flash" not in str(vision._attn_implementation),
        ),
    )


def _by_size(patch: int, merge: int) -> ReadPatches:
    """Read sizes from ``image_sizes`` ``[images, 2]`` in pixels, or from the pixel tensors if they are missing."""

    def patches(modality: str, arguments: Mapping[str, Any]) -> list[Patches]:
        sizes, pixels = arguments.get("image_sizes"), arguments.get("pixel_values")
        if sizes is None:
            sizes = [] if pixels is None else [pixels.shape[-2:]] * len(pixels)
        return [Patches(1, height // patch, width // patch, merge) for height, width in torch.as_tensor(sizes).tolist()]

    return patches
