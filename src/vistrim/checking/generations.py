"""Greedy generations, with the logits of every step and what the cache held after each forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistrim.engine import ModelSpec
from vistrim.engine.releases import CACHE


@dataclass(frozen=True)
class LayerCache:
    """What a layer's cache held after a forward pass.

    Attributes
    ----------
    columns : int
        Columns of its tensors, fillers included.
    nbytes : int
        Bytes of its keys and values.
    slides : bool
        Whether it forgets tokens behind a sliding window by itself.
    slots : tuple of frozenset of int
        Per sample: places in the padded, untrimmed sequence of the tokens that it held; empty for an untouched cache.
    """

    columns: int
    nbytes: int
    slides: bool
    slots: tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Generated:
    """One call of ``generate``.

    Attributes
    ----------
    tokens : Tensor
        ``[batch, steps]`` long.
    logits : Tensor
        ``[batch, steps, vocabulary]``, before any processing.
    caches : list of list of LayerCache
        For each forward pass, the layers; the first pass is the prefill.
    """

    tokens: Tensor
    logits: Tensor
    caches: list[list[LayerCache]]

    def equals(self, other: Generated) -> bool:
        """Whether logits and tokens are the same bit by bit."""
        return torch.equal(self.logits, other.logits) and torch.equal(self.tokens, other.tokens)


def settings(new_tokens: int, suppressed: Sequence[int]) -> dict[str, Any]:
    """Arguments of ``generate`` for a greedy answer of that length, without tokens that stand for images."""
    return {
        "do_sample": False,
        "num_beams": 1,
        "use_cache": True,
        "min_new_tokens": new_tokens,
        "max_new_tokens": new_tokens,
        "suppress_tokens": list(suppressed),
    }


def generate(model: Any, spec: ModelSpec, inputs: Mapping[str, Any], **options: Any) -> Generated:
    """Generate, whether the model is being trimmed or not.

    Parameters
    ----------
    model : PreTrainedModel
        The model.
    spec : ModelSpec
        What `vistrim.engine.describe` found in it.
    inputs : mapping
        A left-padded batch on the model's device.
    **options
        See `settings`.
    """
    caches: list[list[LayerCache]] = []

    def note(module: Any, args: Any, output: Any) -> None:
        caches.append([_layer_cache(layer) for layer in output[CACHE].layers])

    handle = spec.decoder.register_forward_hook(note)
    try:
        output = model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    finally:
        handle.remove()
    prompt = inputs["input_ids"].shape[1]
    return Generated(output.sequences[:, prompt:], torch.stack(output.logits, 1), caches)


def _layer_cache(layer: Any) -> LayerCache:
    slots: list[frozenset[int]] = []
    if hasattr(layer, "columns"):
        held = layer.columns()
        for row, valid in zip(held.slots.tolist(), held.valid.tolist(), strict=True):
            slots.append(frozenset(slot for slot, real in zip(row, valid, strict=True) if real))
    return LayerCache(
        layer.keys.shape[-2], layer.keys.nbytes + layer.values.nbytes, bool(layer.is_sliding), tuple(slots)
    )
