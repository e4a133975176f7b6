"""Decoding: evict visual tokens from the layers' caches, and mask what a batch leaves ragged."""

from typing import Any

import torch
from torch import Tensor

from vistrim.architectures import ModelSpec
from vistrim.core.scores import attention_received
from vistrim.engine.cache import Incoming
from vistrim.engine.forward import Forward
from vistrim.engine.masks import layer_mask
from vistrim.engine.tokens import TokenMap
from vistrim.methods.base import LayerTokens, Method

NOT_HELD = -1.0
"""Score of a visual token that the layer before no longer holds: below every attention weight."""


def plan(spec: ModelSpec, method: Method, forward: Forward) -> None:
    """Fix, before layer 0, which layers' caches this step trims and to how many visual tokens."""
    assert forward.cache is not None
    layers = forward.cache.layers
    depth = spec.decoder_shape.layers
    step = layers[0].logical - layers[0].prompt_length + 1
    forward.targets = [_target(method, cached, i, step, depth) for i, cached in enumerate(layers)]
    # Layer 0 has no layer before it: what it scores in this step ranks its tokens in the next one.
    after = forward.targets[0]
    if _target(method, layers[0], 0, step + 1, depth, after) is not None:
        forward.tapped = 0


def before_layer(spec: ModelSpec, method: Method, forward: Forward, layer: int, kwargs: dict[str, Any]) -> None:
    """Trim a layer's cache if it is its turn, and adapt the layer's mask in ``kwargs``."""
    assert forward.cache is not None
    cached = forward.cache.layers[layer]
    if forward.targets:
        if forward.targets[layer] is not None:
            _evict(spec, method, forward, layer, cached)
        next_is_cut = layer + 1 < len(forward.targets) and forward.targets[layer + 1] is not None
        forward.tapped = layer if next_is_cut or (layer == 0 and forward.tapped == 0) else None
    if not cached.is_trimmed:
        return
    cached.incoming = Incoming(1)
    mask = kwargs.get("attention_mask")
    if mask is None and not any(cached.tokens.n_invalid):
        return
    kwargs["attention_mask"] = forward.remember(
        ("mask", id(mask), id(cached.tokens), cached.stored),
        (mask, cached.tokens),
        lambda: _mask(forward, cached, mask),
    )


def read_scores(forward: Forward, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
    """Score a layer's columns by the attention that the token being processed pays them."""
    assert forward.cache is not None
    visible = None
    if mask is not None:
        row = mask[:, 0]
        visible = row if row.dtype == torch.bool else row > torch.finfo(row.dtype).min / 2
    cached = forward.cache.layers[layer]
    # All visual tokens are among the mapped columns; those behind are generated text.
    forward.scored = cached.tokens
    forward.scores = attention_received(query, key, visible, scaling)[:, : cached.tokens.width]
    if layer == 0:
        cached.scores = forward.scores


def _target(
    method: Method, cached: Any, layer: int, step: int, depth: int, held: tuple[int, ...] | None = None
) -> tuple[int, ...] | None:
    """Visual tokens per sample to cut down to, or None if that would remove nothing."""
    if cached.tokens is None or cached.initial is None:
        return None
    held = held or cached.tokens.n_visual
    counts = method.decode_counts(layer, step, cached.initial, depth)
    if counts is None:
        return None
    target = tuple(map(min, counts, held))
    return None if target == held else target


def _evict(spec: ModelSpec, method: Method, forward: Forward, layer: int, cached: Any) -> None:
    held: TokenMap = cached.tokens
    if layer == 0:
        scores = cached.scores
    else:
        assert forward.scores is not None
        assert forward.scored is not None
        scores = _aligned(forward.scores, forward.scored, held, cached.logical)
    tokens = LayerTokens(scores, held.visual, held.n_visual, cached.initial, spec.decoder_shape.layers)
    cached.keep(method.select_decode(layer, forward.targets[layer] or (), tokens))


def _aligned(scores: Tensor, scored: TokenMap, held: TokenMap, length: int) -> Tensor:
    """Scores of the tokens of one layer, taken over to the tokens of the next.

    Parameters
    ----------
    scores : Tensor
        ``[batch, columns]`` of the layer before.
    scored, held : TokenMap
        Tokens of the layer before, and of this one.
    length : int
        Length of the untrimmed sequence.
    """
    scores = scores.to(held.slots.device)
    by_slot = scores.new_full((scores.shape[0], length + 1), NOT_HELD)
    place = torch.where(scored.valid, scored.slots, length).to(scores.device)
    return by_slot.scatter_(1, place, scores).gather(1, held.slots)


def _mask(forward: Forward, cached: Any, mask: Tensor | None) -> Tensor | None:
    new = TokenMap.text(cached.keys.shape[0], forward.past, 1, cached.keys.device)
    kv_offset = cached.get_mask_sizes(1)[1]
    return layer_mask(mask, cached.columns().followed_by(new), new, forward.past, kv_offset)
