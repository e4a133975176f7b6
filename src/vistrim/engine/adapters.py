"""Adapters of PEFT around a model."""

import sys
from typing import Any

from torch import nn

from vistrim.errors import UnsupportedModelError

BESIDE = ("XLORA", "SHADOW")
"""Types of adapters that run a network beside the layers, over tokens that trimming removes."""


def without_adapter(model: nn.Module) -> Any:
    """The model of transformers whose modules an adapter has changed; any other model as it is.

    Raises
    ------
    UnsupportedModelError
        If the adapter does more than change modules.
    """
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(model, (peft.PeftModel, peft.PeftMixedModel)):
        return model
    for name, config in model.peft_config.items():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning:
            reason = "puts virtual tokens in front of the prompt, which are none of its tokens"
        elif kind in BESIDE:
            reason = "runs a network of its own over all tokens"
        elif getattr(config, "alora_invocation_tokens", None) is not None:
            reason = "begins at a token that it counts from the end of the prompt"
        else:
            continue
        raise UnsupportedModelError(
            f"vistrim does not support the adapter {name!r} ({kind}), which {reason}: "
            "use one that changes modules, such as LoRA, or the model without it (get_base_model())"
        )
    return model.get_base_model() if hasattr(model, "get_base_model") else model.base_model.model
