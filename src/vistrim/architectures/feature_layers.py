"""Hidden states of a vision tower that the projector uses, in configs like LLaVA's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FEATURE_SETTINGS = ("vision_feature_layer", "vision_feature_select_strategy")


@dataclass(frozen=True)
class Features:
    """Outputs of a vision tower that the projector uses.

    Attributes
    ----------
    block : int
        The deepest block whose output is used. -1: the embeddings.
    layers : int
        Number of concatenated outputs.
    skip : int
        Number of tokens dropped at the beginning of each image, tile or frame.
    settings : mapping of str to object
        As in `VisionTower`.
    """

    block: int
    layers: int
    skip: int
    settings: Mapping[str, Any]


def selected_features(config: Any, blocks: int) -> Features | None:
    """Read the used outputs from a config, for a tower of ``blocks`` blocks. None: the tower has no such layer."""
    layers = getattr(config, "vision_feature_layer", -1)
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    # Hidden states count from the embeddings: number 1 is the output of block 0.
    states = range(blocks + 1)
    if not layers or not all(-len(states) <= layer < len(states) for layer in layers):
        return None
    return Features(
        block=max(states[layer] for layer in layers) - 1,
        layers=len(layers),
        # "default" drops the first token, which should be the class token. ViP-LLaVA always drops it.
        skip=int(getattr(config, "vision_feature_select_strategy", "default") == "default"),
        settings={name: getattr(config, name) for name in FEATURE_SETTINGS if hasattr(config, name)},
    )
