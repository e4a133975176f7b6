"""LLaVA: CLIP or SigLIP vision tower, one grid of patches for every image, MLP projector."""

from typing import Any

from vistrim.architectures import pixtral
from vistrim.architectures.patches import one_to_one
from vistrim.architectures.pictures import of_one_grid, unknown
from vistrim.architectures.spec import Images, VisionTower
from vistrim.core.costs import VisionShape

FEATURE_SETTINGS = ("vision_feature_layer", "vision_feature_select_strategy")
VISION_TYPES = ("clip_vision_model", "siglip_vision_model")


def images(model: Any) -> Images:
    """Describe what becomes of images in a LLaVA model."""
    config, base = model.config, model.model
    text, vision = config.text_config, config.vision_config
    if vision.model_type == "pixtral":
        return pixtral.images(model)
    if vision.model_type not in VISION_TYPES:
        return Images(shapes=unknown)
    blocks = tuple(base.vision_tower.encoder.layers)
    side = vision.image_size // vision.patch_size
    layers = config.vision_feature_layer
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    # Hidden states count from the embeddings: number 1 is the output of block 0.
    feature_block = max(range(vision.num_hidden_layers + 1)[layer] for layer in layers) - 1
    # "default" leaves out the first token, which should be the class token.
    skipped = int(config.vision_feature_select_strategy == "default")
    has_cls = vision.model_type == "clip_vision_model"
    return Images(
        shapes=of_one_grid((side, side)),
        grid=(side, side),
        tokens=side * side + has_cls - skipped,
        pixels=vision.image_size,
        tower=VisionTower(
            blocks=blocks,
            attentions=tuple(block.self_attn for block in blocks),
            feature_block=feature_block,
            has_cls=has_cls,
            features=blocks[feature_block],
            arrange=one_to_one(skip=skipped),
            settings={name: getattr(config, name) for name in FEATURE_SETTINGS},
        ),
        cost=VisionShape(
            layers=vision.num_hidden_layers,
            hidden=vision.hidden_size,
            intermediate=vision.intermediate_size,
            tokens=side * side + has_cls,
            projector=(vision.hidden_size * len(layers), text.hidden_size, text.hidden_size),
        ),
    )
