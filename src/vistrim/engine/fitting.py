"""What a method asks of a model, checked before anything is installed."""

from vistrim.architectures import ModelSpec
from vistrim.engine.probe import can_look_ahead
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base import Method


def check_needs(method: Method, spec: ModelSpec) -> None:
    """Refuse a fitted method on a model that cannot give what it asks for.

    Raises
    ------
    UnsupportedModelError
        With another method to use.
    """
    blocks = (*method.vision_blocks(spec.vision.feature_block), *method.vision_states(spec.vision.feature_block))
    if not set(blocks) <= set(range(len(spec.vision.blocks))):
        raise UnsupportedModelError(
            f"{method.name} reads blocks of the vision tower, up to the feature block, that this model does not "
            "have: use a method that ranks inside the language model, such as fastv"
        )
    if method.ranks_by == "layer ahead" and not all(map(can_look_ahead, spec.layers)):
        raise UnsupportedModelError(
            f"{method.name} ranks by the layer that is about to run, and vistrim cannot compute the queries and "
            "keys of this model's layers in advance: use fastv, which ranks by the layer before"
        )
