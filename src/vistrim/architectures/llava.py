"""LLaVA and ViP-LLaVA: CLIP or SigLIP vision tower, one grid of patches for every image, MLP projector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vistrim.architectures import pixtral
from vistrim.architectures.patches import one_to_one
from vistrim.architectures.pictures import of_one_grid, unknown
from vistrim.architectures.spec import Images
from vistrim.architectures.vit import ViT, take_apart

FEATURE_SETTINGS = ("vision_feature_layer", "vision_feature_select_strategy")


@dataclass(frozen=True)
class Features:
    """What of a tower goes to the projector, in configs like LLaVA's.

    Attributes
    ----------
    block : int
        The deepest block whose output does; -1: the embeddings.
    layers : int
        How many outputs are put side by side.
    skip : int
        First tokens of each picture that are left out.
    settings : mapping of str to object
        As in `VisionTower`.
    """

    block: int
    layers: int
    skip: int
    settings: Mapping[str, Any]


def selected_features(config: Any, vit: ViT) -> Features | None:
    """Read it off a config; None: the tower has no such layer."""
    layers = config.vision_feature_layer
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    # Hidden states count from the embeddings: number 1 is the output of block 0.
    states = range(len(vit.blocks) + 1)
    if not layers or not all(-len(states) <= layer < len(states) for layer in layers):
        return None
    return Features(
        block=max(states[layer] for layer in layers) - 1,
        layers=len(layers),
        # "default" leaves out the first token, which should be the class token. ViP-LLaVA always does.
        skip=int(getattr(config, "vision_feature_select_strategy", "default") == "default"),
        settings={name: getattr(config, name) for name in FEATURE_SETTINGS if hasattr(config, name)},
    )


def images(model: Any) -> Images:
    """Describe what becomes of images in a LLaVA or ViP-LLaVA model."""
    if model.config.vision_config.model_type == "pixtral":
        return pixtral.images(model)
    vit = take_apart(model.base_model.vision_tower)
    features = None if vit is None else selected_features(model.config, vit)
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
