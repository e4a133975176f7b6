"""Prefill: cut tokens before a layer, and give the layer the inputs of those that are left."""

from typing import Any

import torch
from torch import Tensor

from vistrim.architectures import ModelSpec
from vistrim.core.scores import attention_received
from vistrim.core.selection import Selection
from vistrim.engine.cache import Incoming
from vistrim.engine.compaction import compact_arguments, compact_hidden
from vistrim.engine.forward import Forward, visible_columns
from vistrim.engine.masks import layer_mask
from vistrim.engine.tokens import TokenMap
from vistrim.methods.base import InputTokens, LayerTokens, Method


def before_layer(
    spec: ModelSpec,
    method: Method,
    cuts: frozenset[int],
    forward: Forward,
    layer: int,
    hidden: Tensor,
    kwargs: dict[str, Any],
) -> Tensor:
    """Cut before a layer if the method wants to, and adapt the layer's arguments in ``kwargs``.

    Parameters
    ----------
    cuts : frozenset of int
        Layers before which the method is asked.
    hidden : Tensor
        ``[batch, rows, hidden]``.

    Returns
    -------
    Tensor
        ``[batch, fewer rows, hidden]``.
    """
    assert forward.tokens is not None
    with forward.recorder.selecting():
        hidden = _cut(spec, method, cuts, forward, layer, hidden)
        forward.tapped = layer if layer + 1 in cuts or (layer == 0 and method.acts_in_decode) else None
    tokens = forward.tokens
    cached = forward.cache.layers[layer] if forward.cache is not None else None
    held = cached.stored if cached is not None else 0
    if forward.trimmed:
        rows = tokens.slots - forward.past
        held_arguments = kwargs["position_embeddings"], kwargs.get("position_ids")
        key = "arguments", *map(id, held_arguments)
        kwargs |= forward.remember(key, held_arguments, lambda: compact_arguments(kwargs, rows))
    if forward.trimmed or (cached is not None and cached.is_trimmed):
        kwargs["attention_mask"] = _mask(forward, cached, kwargs.get("attention_mask"))
    if cached is not None:
        cached.incoming = Incoming(forward.length, tokens, forward.initial, forward.trimmed)
    if forward.recorder.in_prefill:
        forward.recorder.layer_ran(tokens.width, held, tokens)
    return hidden


def read_scores(forward: Forward, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
    """Score the tokens by the attention that the ranking token pays them at this layer."""
    assert forward.tokens is not None
    assert forward.ranking is not None
    with forward.recorder.selecting():
        tokens, ranking = forward.tokens, forward.ranking
        rows = ((tokens.slots == ranking[:, None]) & tokens.valid).to(torch.uint8).argmax(1).to(query.device)
        row = query[torch.arange(query.shape[0], device=query.device), :, rows][:, :, None]
        visible = visible_columns(mask, rows, query.shape[2], key.shape[2])
        scores = attention_received(row, key, visible, scaling)
        forward.scores = scores[:, -tokens.width :]
        if layer == 0 and forward.cache is not None:
            forward.cache.layers[0].scores = scores


def _cut(spec: ModelSpec, method: Method, cuts: frozenset[int], forward: Forward, layer: int, hidden: Tensor) -> Tensor:
    tokens = forward.tokens
    assert tokens is not None
    selection = None
    if layer == 0:
        if "input" in method.stages:
            images = _images_per_sample(forward.image_sizes, tokens.n_visual)
            selection = method.select_input(InputTokens(hidden, tokens.visual, images, spec.grid))
    elif layer in cuts and forward.scores is not None:
        selection = method.select_prefill(layer, _layer_tokens(spec, forward, tokens, forward.scores))
    if selection is None or selection.counts == tokens.n_visual:
        return hidden
    index, forward.tokens = tokens.keep(_on(tokens, selection))
    forward.trimmed = True
    forward.memo.clear()
    forward.recorder.cut(layer, forward.tokens)
    return compact_hidden(hidden, index, selection.merge_into)


def _layer_tokens(spec: ModelSpec, forward: Forward, tokens: TokenMap, scores: Tensor) -> LayerTokens:
    return LayerTokens(
        scores=scores.to(tokens.visual.device),
        visual=tokens.visual,
        held=tokens.n_visual,
        initial=forward.initial,
        depth=spec.decoder_shape.layers,
    )


def _on(tokens: TokenMap, selection: Selection) -> Selection:
    return Selection(selection.keep.to(tokens.visual.device), selection.counts, selection.merge_into)


def _mask(forward: Forward, cached: Any, mask: Tensor | None) -> Tensor | None:
    assert forward.tokens is not None
    tokens = forward.tokens
    past = cached.tokens if cached is not None else None

    def make() -> Tensor | None:
        keys = cached.columns().followed_by(tokens) if cached is not None and cached.logical else tokens
        kv_offset = cached.get_mask_sizes(forward.length)[1] if cached is not None else 0
        return layer_mask(mask, keys, tokens, forward.past, kv_offset)

    return forward.remember(("mask", id(mask), id(past)), (mask, past), make)


def _images_per_sample(sizes: list[int], n_visual: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Deal the images out to the samples that their tokens belong to."""
    remaining = iter(sizes)
    images = []
    for n in n_visual:
        of_sample: list[int] = []
        while sum(of_sample) < n:
            of_sample.append(next(remaining))
        images.append(tuple(of_sample))
    return tuple(images)
