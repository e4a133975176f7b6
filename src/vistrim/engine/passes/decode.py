"""Decoding: eviction of visual tokens from the caches of the layers, and masks of ragged batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vistrim.core.scores import AttentionRows, Softmax
from vistrim.engine.cache.layers import GENERATED, refuse_cropping
from vistrim.engine.hooks import Call
from vistrim.engine.passes.forward import Forward
from vistrim.engine.passes.layer_cut import LayerPass
from vistrim.engine.passes.method_answers import check_counts, check_eviction
from vistrim.engine.tokens.masks import decode_mask, visible
from vistrim.engine.tokens.positions import lowered_arguments, own_positions
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.methods.base.stage_inputs import LayerTokens

NOT_HELD = -1.0
"""Score of a visual token that the previous layer no longer holds. It is below every attention weight."""

Counts = tuple[int, ...]


@dataclass
class Decode(Forward):
    """A forward pass over one generated token per sample.

    Attributes
    ----------
    targets : list
        Number of visual tokens per sample that each layer keeps in this step. None: the layer is not cut.
    ranks_layer_0 : bool
        Whether layer 0 is cut in the next step. It has no previous layer, so its own scores of this step are used.
    evicts : bool
        Whether this step evicts tokens, or scores them for the next step that does.
    scored : TokenMap or None
        The tokens of ``scores``.
    slides : bool
        Whether the intercepted layer evicts a token in this pass because its sliding window is full.
    """

    targets: list[Counts | None] = field(init=False)
    ranks_layer_0: bool = field(init=False)
    evicts: bool = field(init=False, default=False)
    scored: TokenMap | None = field(init=False, default=None)
    slides: bool = False

    def __post_init__(self) -> None:
        assert self.cache is not None
        layers = self.cache.layers
        step = layers[0].logical - layers[0].prompt_length + 1
        self.targets, self.ranks_layer_0 = [None] * len(layers), False
        if not self.method.acts_in_decode:
            return
        if any(cached.evicts_next for cached in layers):
            self.recorder.window_ended_annealing = True
        self.targets = [self._target(cached, i, step) for i, cached in enumerate(layers)]
        self.ranks_layer_0 = self._target(layers[0], 0, step + 1, self.targets[0]) is not None
        cuts = any(target is not None for target in self.targets)
        self.evicts = cuts or self.ranks_layer_0
        if cuts:
            refuse_cropping(layers)

    def before_layer(self, layer: int, hidden: Tensor, kwargs: Call) -> tuple[Tensor, Call] | None:
        assert self.cache is not None
        cached = self.cache.layers[layer]
        if self.evicts:
            self._anneal(layer, cached)
        if not cached.is_trimmed:
            return None
        cached.incoming = GENERATED
        mask = kwargs.get("attention_mask")
        if mask is None and cached.is_plain:
            return None
        changed: Call = {}
        if (shift := cached.shift) is not None:
            own, rotary = own_positions(kwargs), partial(self.spec.rotary, layer)
            changed |= self.remember(
                ("lowered", id(kwargs["position_embeddings"]), shift.amounts),
                (kwargs["position_embeddings"], own),
                lambda: lowered_arguments(rotary, hidden, own, torch.zeros_like(shift.tensor), None, shift),
            )
        additive = mask.dtype if mask is not None and mask.dtype != torch.bool else None
        config: Any = self.spec.decoder.config
        if mask is None and config._attn_implementation == "eager":
            additive = hidden.dtype
        window = getattr(cached, "sliding_window", None)
        flat = self.flash and self.plan_layer(layer) is None
        changed["attention_mask"] = self.remember(
            (id(cached.tokens), cached.stored, window, flat),
            cached.tokens,
            lambda: decode_mask(cached.tokens, cached.stored, self.past, window, additive, flat),
        )
        return hidden, changed

    def _anneal(self, layer: int, cached: Any) -> None:
        """Evict tokens from a layer, and intercept its attention if its scores are needed."""
        target = self.targets[layer]
        if target is not None:
            self._evict(layer, cached, target)
        next_is_cut = layer + 1 < len(self.targets) and self.targets[layer + 1] is not None
        self.intercepted = layer if next_is_cut or (layer == 0 and self.ranks_layer_0) else None
        self.slides = self.intercepted is not None and cached.evicts_next
        if self.slides:
            # The oldest token is seen once more, and evicted before the scores are read.
            self.scored = cached.columns()

    def plan_layer(self, layer: int) -> LayerPass | None:
        assert self.cache is not None
        cut = self.layer_cuts[layer]
        return cut.plan_decode(self.cache.layers[layer]) if cut is not None else None

    def read_scores(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        assert self.cache is not None
        cached = self.cache.layers[layer]
        seen = None if mask is None else mask[:, None] if mask.dim() == 2 else visible(mask)[:, 0]
        if not self.slides:
            # All visual tokens are among the mapped columns. Later columns are generated text.
            self.scored = cached.tokens
        only = torch.zeros(len(query), 1, dtype=torch.long, device=query.device)
        asking = AttentionRows(query, key, seen, softmax, key.shape[2], only)
        scores = self.of_all_heads(asking).received()
        if seen is not None:
            # Tokens outside of the window count as evicted, even if they are still stored.
            scores = scores.masked_fill(~seen[:, 0], NOT_HELD)
        assert self.scored is not None
        self.scores = scores[:, : self.scored.width]
        if cached.order is not None:
            self.scores = self.scores.gather(1, cached.order.to(scores.device))
        if layer == 0:
            cached.scores = self.scores

    def _target(self, cached: Any, layer: int, step: int, held: Counts | None = None) -> Counts | None:
        """Return the number of visual tokens per sample to keep, or None if that would remove nothing."""
        # A full window evicts tokens itself, and these are not counted.
        if cached.tokens is None or cached.initial is None or cached.evicts_next:
            return None
        held = held or cached.tokens.n_visual
        answer = self.method.decode_counts(layer, step, cached.initial, cached.left, self.spec.decoder_shape.layers)
        counts = check_counts(answer, self.method, len(held))
        if counts is None:
            return None
        target = tuple(map(min, counts, held))
        return None if target == held else target

    def _evict(self, layer: int, cached: Any, counts: Counts) -> None:
        held: TokenMap = cached.tokens
        if layer == 0:
            scores = cached.scores.to(held.slots.device)
        else:
            assert self.scores is not None
            assert self.scored is not None
            scores = aligned(self.scores, self.scored, held, cached.logical)
        tokens = LayerTokens(scores, held.visual, held.n_visual, cached.initial, self.spec.decoder_shape.layers)
        cached.keep(check_eviction(self.method.select_decode(layer, counts, tokens), self.method, counts, held))


def aligned(scores: Tensor, scored: TokenMap, held: TokenMap, length: int) -> Tensor:
    """Map the scores of the tokens of one layer to the tokens of the next layer.

    Parameters
    ----------
    scores : Tensor
        ``[batch, columns]`` of the previous layer.
    scored, held : TokenMap
        Tokens of the previous layer, and of this one.
    length : int
        Length of the untrimmed sequence.

    Returns
    -------
    Tensor
        ``[batch, columns]`` of this layer. `NOT_HELD` where the previous layer has no such token.
    """
    scores = scores.to(held.slots.device)
    by_slot = scores.new_full((scores.shape[0], length + 1), NOT_HELD)
    place = torch.where(scored.valid, scored.slots, length) if any(scored.n_invalid) else scored.slots
    place = place.to(scores.device)
    return by_slot.scatter_(1, place, scores).gather(1, held.slots)
