"""Differences between the supported releases of transformers.

Apart from the check of the range (`vistrim._utils.releases`), no other file reads the version or knows renamed
arguments. CONTRIBUTING.md explains how to change the range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from vistrim._utils.releases import REQUIREMENT, release
from vistrim.errors import UnsupportedModelError

FAULTS = {
    ("5.24.0", "llama4"): "each forward pass ends in an AttributeError (image_outputs)",
}
"""Reasons why a release of transformers cannot run a model type, trimmed or not."""


def check_runs(model_type: str) -> None:
    """Refuse a model that the installed transformers release itself cannot run.

    Parameters
    ----------
    model_type : str
        As in the model's config.

    Raises
    ------
    UnsupportedModelError
        If it cannot run the model. The message names the reason and the fix.
    """
    if (fault := FAULTS.get((transformers.__version__, model_type))) is not None:
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} itself cannot run {model_type}, {fault}: "
            f"pip install '{REQUIREMENT},!={transformers.__version__}'"
        )


_SINCE_5_24 = release(transformers.__version__) >= (5, 24)

CACHE = "cache" if _SINCE_5_24 else "past_key_values"
"""Name of the KV cache in the arguments and outputs of models and ``generate``."""
_FORMER_NAMES = ("past_key_values", "cache_params") if _SINCE_5_24 else ()
"""Deprecated names that transformers still accepts for ``CACHE``."""


def with_cache_renamed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the cache in the arguments of a call to ``CACHE``.

    As in transformers, a deprecated name is ignored if the current one is given.
    """
    renamed = {name: value for name, value in arguments.items() if name not in _FORMER_NAMES}
    for name in _FORMER_NAMES:
        if name in arguments:
            renamed.setdefault(CACHE, arguments[name])
    return renamed


def recomputes_layers(decoder: Any) -> bool:
    """Whether activation checkpointing recomputes the layers of a forward pass, which then has no cache."""
    recomputes: bool = decoder.training and decoder.is_activation_checkpointing
    # Up to 5.23, also in a pass without gradients.
    return recomputes and (torch.is_grad_enabled() or not _SINCE_5_24)
