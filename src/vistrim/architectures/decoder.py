"""Discovery of the decoder of a multimodal model, and checks whether tokens can be removed between its layers."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any, get_args

from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from vistrim.architectures.spec import Rotary
from vistrim.errors import UnsupportedModelError

CACHE_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
LAYER_ARGUMENTS = {
    "self",
    "hidden_states",
    "attention_mask",
    "position_ids",
    "position_embeddings",
    "use_cache",
    "output_attentions",
    "output_router_logits",
    "moe_mm_token_type_ids",
    "kwargs",
}
"""Arguments of a decoder layer, besides its cache, whose tokens the engine can remove."""
EMPTY_WITHOUT = {"per_layer_input": "hidden_size_per_layer_input", "shared_kv_states": "num_kv_shared_layers"}
"""Further arguments that are empty if the named setting of the config is 0 or missing (Gemma 4)."""


def find_decoder(model: Any) -> Any:
    """Find the module that runs the decoder layers.

    Raises
    ------
    UnsupportedModelError
        If there is no decoder in which tokens can be removed between layers.
    """
    name = type(model).__name__
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    # Some models contain a text model with its own head.
    while decoder is not None and not hasattr(decoder, "layers"):
        decoder = getattr(decoder, "model", None)
    if decoder is None:
        raise UnsupportedModelError(f"{name} has no decoder with a list of layers, between which tokens can be removed")
    _check_layers(name, decoder)
    if not hasattr(decoder, "rotary_emb"):
        raise UnsupportedModelError(f"{name} does not pass the positions of tokens to its layers (RoPE)")
    return decoder


def _check_layers(name: str, decoder: Any) -> None:
    config = decoder.config
    if getattr(config, "num_kv_shared_layers", None):
        raise UnsupportedModelError(
            f"{name} has layers that share the keys and values of earlier layers, so tokens cannot be removed layer by "
            "layer"
        )
    cache = DynamicCache(config=config).layers
    if other := sorted({type(layer).__name__ for layer in cache if type(layer) not in CACHE_LAYERS}):
        raise UnsupportedModelError(
            f"{name} caches more than keys and values of each token ({', '.join(other)}: linear or sparse attention, "
            "from whose state single tokens cannot be removed)"
        )
    for i, layer in enumerate(decoder.layers):
        kind = type(layer).__name__
        attention: Any = getattr(layer, "self_attn", None)
        if not hasattr(attention, "config") or not _uses_interface(attention.__class__):
            raise UnsupportedModelError(
                f"layer {i} of {name} ({kind}) has no self-attention that uses the kernel registry of transformers, "
                "so its queries and keys cannot be read"
            )
        empty = {argument for argument, setting in EMPTY_WITHOUT.items() if not getattr(config, setting, None)}
        arguments = inspect.signature(type(layer).forward).parameters
        caches = {argument for argument, parameter in arguments.items() if _is_cache(parameter.annotation)}
        if unknown := sorted(arguments.keys() - LAYER_ARGUMENTS - caches - empty):
            raise UnsupportedModelError(
                f"layer {i} of {name} ({kind}) takes {', '.join(unknown)} for each token, which vistrim cannot trim"
            )


def _is_cache(annotation: Any) -> bool:
    return Cache in (annotation, *get_args(annotation))


@functools.cache
def _uses_interface(attention: Any) -> bool:
    """Whether this class of attention looks up its kernel in the registry of transformers at every call."""
    for kind in attention.__mro__:
        if "forward" in vars(kind):
            try:
                source = inspect.getsource(kind.forward)
            except (OSError, TypeError):
                return False
            if "super().forward" not in source:
                return "ALL_ATTENTION_FUNCTIONS" in source
    return False


def rotary_of(decoder: Any) -> Rotary:
    """Return the function that computes the RoPE tables of the decoder."""
    module = decoder.rotary_emb
    kinds = "layer_type" in inspect.signature(module.forward).parameters

    def rotary(layer: int, hidden: Any, positions: Any) -> Any:
        return module(hidden, positions, *([decoder.config.layer_types[layer]] if kinds else []))

    return rotary


def rope_axes(text: Any) -> int:
    """Return the number of axes of a RoPE position: 1, or 3 for M-RoPE."""
    return 3 if any("mrope_section" in parameters for parameters in _rope_parameters(text)) else 1


def _rope_parameters(text: Any) -> Iterator[dict[str, Any]]:
    found = getattr(text, "rope_parameters", None) or {}
    yield found
    # Each kind of layer may have its own set.
    yield from (value for value in found.values() if isinstance(value, dict))


def longest(text: Any) -> int | None:
    """Return the length beyond which attention depends on row indices (chunks and query scaling of Llama 4)."""
    limits = []
    if "chunked_attention" in (getattr(text, "layer_types", None) or ()):
        limits.append(text.attention_chunk_size)
    if getattr(text, "attn_temperature_tuning", False):
        limits.append(int(text.floor_scale))
    return min(limits, default=None)
