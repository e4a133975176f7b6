"""What differs between the transformers releases that vistrim supports.

No other file asks for the version, but for the check of the range (`vistrim._utils.releases`), or knows more than one
of the names that a thing has had. CONTRIBUTING.md says how the range is moved.
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
"""Release and model type to why transformers itself cannot run the model, trimmed or not."""


def check_runs(model_type: str) -> None:
    """Refuse a model that the installed transformers release itself cannot run.

    Parameters
    ----------
    model_type : str
        As in the model's config.

    Raises
    ------
    UnsupportedModelError
        With the reason and the way out.
    """
    if (fault := FAULTS.get((transformers.__version__, model_type))) is not None:
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} itself cannot run {model_type}, {fault}: "
            f"pip install '{REQUIREMENT},!={transformers.__version__}'"
        )


_SINCE_5_24 = release(transformers.__version__) >= (5, 24)

CACHE = "cache" if _SINCE_5_24 else "past_key_values"
"""Name of the KV cache among the arguments of models and ``generate``, and in their outputs."""
_FORMER_NAMES = ("past_key_values", "cache_params") if _SINCE_5_24 else ()
"""Names that transformers still takes in place of ``CACHE``."""


def with_cache_renamed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a call by name, among them the cache by no other than ``CACHE``.

    As in transformers, a former name does not count beside the present one.
    """
    renamed = {name: value for name, value in arguments.items() if name not in _FORMER_NAMES}
    for name in _FORMER_NAMES:
        if name in arguments:
            renamed.setdefault(CACHE, arguments[name])
    return renamed


def recomputes_layers(decoder: Any) -> bool:
    """Whether a forward pass recomputes its layers for the gradient, for which transformers does without a cache."""
    recomputes: bool = decoder.training and decoder.is_activation_checkpointing
    # Until 5.23 also in a pass without a gradient.
    return recomputes and (torch.is_grad_enabled() or not _SINCE_5_24)
