"""Find out whether and how a model can be trimmed."""

from collections.abc import Callable

from torch import nn

from vistrim.architectures import llava
from vistrim.architectures.spec import ModelSpec
from vistrim.errors import UnsupportedModelError

FAMILIES: dict[str, Callable[[nn.Module], ModelSpec]] = {llava.MODEL_TYPE: llava.describe}
"""Model type (``config.model_type``) to the function that takes such a model apart."""


def discover(model: nn.Module) -> ModelSpec:
    """Take a model apart, or refuse it.

    Raises
    ------
    UnsupportedModelError
        If the model is not of a supported family or was compiled; the message gives the reason and the way out.
    """
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in model.modules()):
        raise UnsupportedModelError(
            "the model was compiled with torch.compile, whose graphs cannot follow changing token counts: "
            "pass the model as it was before compiling"
        )
    if hasattr(model, "get_base_model"):
        raise UnsupportedModelError(f"{type(model).__name__} is a wrapper: pass its get_base_model()")
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"{type(model).__name__} (model type {model_type!r}) is not supported: "
            f"vistrim trims models of type {', '.join(sorted(FAMILIES))} so far"
        )
    return FAMILIES[model_type](model)
