"""torch.compile: its graphs remember which hooks there were, and so neither follow trimming nor its end."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from vistrim.architectures import ModelSpec
from vistrim.architectures.discovery import is_compiled
from vistrim.errors import UnsupportedGenerationError


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
