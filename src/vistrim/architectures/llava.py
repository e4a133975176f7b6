"""LLaVA and ViP-LLaVA: CLIP or SigLIP vision tower, one grid of patches for every image, MLP projector."""

from typing import Any

from vistrim.architectures import pixtral
from vistrim.architectures.arrangements import one_to_one
from vistrim.architectures.feature_layers import selected_features
from vistrim.architectures.image_layouts import of_one_grid, unknown
from vistrim.architectures.spec import Images
from vistrim.architectures.vit import take_apart


def images(model: Any) -> Images:
    """Describe the processing of images in a LLaVA or ViP-LLaVA model."""
    if model.config.vision_config.model_type == "pixtral":
        return pixtral.images(model)
    vit = take_apart(model.base_model.vision_tower)
    features = None if vit is None else selected_features(model.config, len(vit.blocks))
    if vit is None or features is None:
        return Images(shapes=unknown)
    text = model.config.text_config
    return Images(
        shapes=of_one_grid((vit.side, vit.side)),
        grid=(vit.side, vit.side),
        tokens=vit.tokens - features.skip,
        pixels=vit.pixels,
        tower=vit.tower(one_to_one(features.skip), features.block, features.settings),
        cost=vit.cost((vit.hidden * features.layers, text.hidden_size, text.hidden_size)),
    )
