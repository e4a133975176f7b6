"""Pixtral's tower, all images in one sequence: in Mistral 3 and LightOnOCR (squares merged), and in LLaVA's clothes."""

from collections.abc import Mapping
from typing import Any

import torch

from vistrim.architectures.packed import PackedPictures, Patches, ReadPatches, in_rows
from vistrim.architectures.pictures import unknown
from vistrim.architectures.spec import Images, VisionTower
from vistrim.core.costs import VisionShape

FEATURE_SETTINGS = ("vision_feature_layer", "vision_feature_select_strategy")


def images(model: Any) -> Images:
    """Describe what becomes of images in a model with Pixtral's tower."""
    config, base = model.config, model.base_model
    vision, text = config.vision_config, config.text_config
    settings = {name: getattr(config, name) for name in FEATURE_SETTINGS if hasattr(config, name)}
    if vision.model_type != "pixtral" or settings.get("vision_feature_select_strategy") == "default":
        # "default" drops the first token as the class token, which this tower does not have.
        return Images(shapes=unknown)
    merge = getattr(config, "spatial_merge_size", 1)
    pictures = PackedPictures(_by_size(vision.patch_size, merge), in_rows)
    tower = base.vision_encoder if hasattr(base, "vision_encoder") else base.vision_tower
    blocks = tuple(tower.transformer.layers)
    layers = settings.get("vision_feature_layer", -1)
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    # Hidden states count from the embeddings: number 1 is the output of block 0.
    feature_block = max(range(vision.num_hidden_layers + 1)[layer] for layer in layers) - 1
    merger = (vision.hidden_size * merge**2,) if hasattr(config, "spatial_merge_size") else ()
    return Images(
        shapes=pictures.shapes,
        tower=VisionTower(
            blocks=blocks,
            attentions=tuple(block.attention for block in blocks),
            feature_block=feature_block,
            has_cls=False,
            features=blocks[feature_block],
            arrange=pictures.arrange,
            settings=settings,
            packed=pictures.sizes,
        ),
        cost=VisionShape(
            layers=vision.num_hidden_layers,
            hidden=vision.hidden_size,
            intermediate=vision.intermediate_size,
            tokens=None,
            projector=(*merger, vision.hidden_size * len(layers), text.hidden_size, text.hidden_size),
            gated=True,
            # Flash attention is told where images end; other kernels compute all of the matrix.
            joint="flash" not in str(vision._attn_implementation),
        ),
    )


def _by_size(patch: int, merge: int) -> ReadPatches:
    """Sizes in ``image_sizes`` ``[images, 2]``, in pixels; without them, images are as large as they are given."""

    def patches(modality: str, arguments: Mapping[str, Any]) -> list[Patches]:
        sizes, pixels = arguments.get("image_sizes"), arguments.get("pixel_values")
        if sizes is None:
            sizes = [] if pixels is None else [pixels.shape[-2:]] * len(pixels)
        return [Patches(1, height // patch, width // patch, merge) for height, width in torch.as_tensor(sizes).tolist()]

    return patches
