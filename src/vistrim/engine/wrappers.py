"""Wrappers around a model: PEFT adapters, which are unwrapped, and torch.compile, which is refused.

Compiled graphs contain the hooks present at compilation, so they ignore the start and the end of trimming.
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
"""Types of adapters that run a separate network over all tokens, including those that trimming removes."""


def without_adapter(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT adapter, or the model itself if it has no adapter.

    Raises
    ------
    UnsupportedModelError
        If the adapter does more than modify modules.
    """
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(model, (peft.PeftModel, peft.PeftMixedModel)):
        return model
    for name, config in model.peft_config.items():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning:
            reason = "adds virtual tokens in front of the prompt"
        elif kind in BESIDE:
            reason = "runs a separate network over all tokens"
        elif getattr(config, "alora_invocation_tokens", None) is not None:
            reason = "begins at a token counted from the end of the prompt"
        else:
            continue
        raise UnsupportedModelError(
            f"vistrim does not support the adapter {name!r} ({kind}), which {reason}: "
            "use one that changes modules, such as LoRA, or the model without it (get_base_model())"
        )
    return model.get_base_model() if hasattr(model, "get_base_model") else model.base_model.model


def check_eager(model: nn.Module, spec: ModelSpec) -> None:
    """Refuse a forward pass if the model or a part of it is compiled or being compiled.

    Raises
    ------
    UnsupportedGenerationError
        If it is compiled. The message names the fix.
    """
    # A layer may have been replaced by another module.
    layers = spec.decoder.get_submodule("layers").children()
    modules = chain((model, spec.base, spec.decoder), layers, spec.attentions)
    if torch.compiler.is_compiling() or any(map(is_compiled, modules)):
        _refuse()


# Not traced, because the compiler would replace an error raised in a trace by its own.
@torch.compiler.disable
def _refuse() -> None:
    raise UnsupportedGenerationError(
        "vistrim does not support torch.compile, whose graphs cannot follow changing token counts: run the model as it "
        "was before compiling (modules inside a layer, such as its mlp, may be compiled)"
    )
