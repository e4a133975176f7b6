"""Which hidden states of a vision tower go to the projector, in configs like LLaVA's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FEATURE_SETTINGS = ("vision_feature_layer", "vision_feature_select_strategy")


@dataclass(frozen=True)
class Features:
    """What of a tower goes to the projector.

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

    def projector(self, base: Any) -> Any:
        """The base model's projector, unless it is given several outputs."""
        return base.multi_modal_projector if self.layers == 1 else None


def selected_features(config: Any, blocks: int) -> Features | None:
    """Read it off a config, for a tower of so many blocks; None: the tower has no such layer."""
    layers = getattr(config, "vision_feature_layer", -1)
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    # Hidden states count from the embeddings: number 1 is the output of block 0.
    states = range(blocks + 1)
    if not layers or not all(-len(states) <= layer < len(states) for layer in layers):
        return None
    return Features(
        block=max(states[layer] for layer in layers) - 1,
        layers=len(layers),
        # "default" leaves out the first token, which should be the class token. ViP-LLaVA always does.
        skip=int(getattr(config, "vision_feature_select_strategy", "default") == "default"),
        settings={name: getattr(config, name) for name in FEATURE_SETTINGS if hasattr(config, name)},
    )
