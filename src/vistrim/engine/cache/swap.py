"""Checks of caches, and replacement of their layers by layers that can evict tokens."""

from collections.abc import Iterable
from typing import Any

from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from vistrim.core.structure import LayerStructure
from vistrim.engine.cache.layers import TrimmableLayer, TrimmableSlidingLayer
from vistrim.errors import UnsupportedGenerationError

_TRIMMABLE = {DynamicLayer: TrimmableLayer, DynamicSlidingWindowLayer: TrimmableSlidingLayer}
_SWAPPED = frozenset(_TRIMMABLE.values())


def check_cache(cache: object) -> None:
    """Refuse a cache that cannot evict tokens.

    Raises
    ------
    UnsupportedGenerationError
        If it is not a dynamic cache on the device of the model.
    """
    layers = getattr(cache, "layers", None)
    kinds = {type(cache)} if layers is None else {type(layer) for layer in layers}
    known = {*_TRIMMABLE, *_SWAPPED}
    if unknown := sorted(kind.__name__ for kind in kinds - known):
        raise UnsupportedGenerationError(
            f"vistrim cannot remove tokens from a cache made of {', '.join(unknown)}: "
            "use the default cache (leave out `cache_implementation`) or pass a `DynamicCache`"
        )
    if getattr(cache, "offloading", False):
        raise UnsupportedGenerationError(
            "vistrim does not support an offloaded cache: leave out `cache_implementation='offloaded'` "
            "(a trimmed cache is smaller anyway)"
        )


def make_trimmable(cache: Cache, config: Any) -> None:
    """Replace the layers of a dynamic cache, in place, by layers that can evict tokens.

    Parameters
    ----------
    cache : Cache
        A dynamic cache, empty or in use.
    config : PretrainedConfig
        Config of the decoder.

    Raises
    ------
    UnsupportedGenerationError
        If the cache does not match the decoder.
    """
    # Fast path: every decoding step calls this function.
    layers = getattr(cache, "layers", None)
    if layers and _SWAPPED.issuperset(map(type, layers)) and not getattr(cache, "offloading", False):
        return
    check_cache(cache)
    # A cache created without the config has no sliding windows.
    model_layers = DynamicCache(config=config).layers
    cache.layers += model_layers[len(cache.layers) :]
    for i, layer in enumerate(cache.layers):
        if layer.is_sliding != model_layers[i].is_sliding and layer.get_seq_length():
            raise UnsupportedGenerationError(
                "this KV cache was created without the model's sliding window: "
                "create it with DynamicCache(config=model.config.get_text_config())"
            )
        if type(layer) in _TRIMMABLE:
            source = layer if layer.get_seq_length() else model_layers[i]
            cls = _TRIMMABLE[type(source)]
            cache.layers[i] = cls.__new__(cls)
            cache.layers[i].__dict__.update(source.__dict__)
            cache.layers[i].logical = source.get_seq_length()


def check_lacking(cache: Cache, lacking: Iterable[LayerStructure | None]) -> None:
    """Refuse a cache whose visual tokens lack keys or values that the layers will read.

    Raises
    ------
    UnsupportedGenerationError
        If the cache was filled with different head cuts.
    """
    for cached, own in zip(cache.layers, lacking, strict=True):
        if cached.lacking is not None and cached.lacking != own:
            raise UnsupportedGenerationError(
                "this KV cache was filled with attention heads cut, and its visual tokens have no keys and values "
                "there: continue it with the same heads cut, or start with a new cache"
            )
