"""What users put around a model: adapters of PEFT, which are taken off, and torch.compile, which is refused.

Compiled graphs remember which hooks there were, and so follow neither trimming nor its end.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import Any

import torch
from torch import nn

from vistrim.architectures import ModelSpec
from vistrim.architectures.discovery import is_compiled
from vistrim.errors import UnsupportedGenerationError, UnsupportedModelError

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


def check_eager(model: nn.Module, spec: ModelSpec) -> None:
    """Refuse a pass through a model of which parts were compiled, or that is being compiled.

    Raises
    ------
    UnsupportedGenerationError
        With the way out.
    """
    # Another module may have taken the place of a layer.
    layers = spec.decoder.get_submodule("layers").children()
    modules = chain((model, spec.base, spec.decoder), layers, spec.attentions)
    if torch.compiler.is_compiling() or any(map(is_compiled, modules)):
        _refuse()


# Called, not traced: an error that is raised in a trace would become one of the compiler.
@torch.compiler.disable
def _refuse() -> None:
    raise UnsupportedGenerationError(
        "vistrim does not support torch.compile, whose graphs cannot follow changing token counts: run the model as it "
        "was before compiling (parts inside a layer, such as its mlp, may be compiled)"
    )
