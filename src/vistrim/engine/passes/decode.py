"""Decoding: eviction of visual tokens from the caches of the layers, and masks of ragged batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vistrim.core.scores import AttentionRows, Softmax
from vistrim.engine.cache.layers import GENERATED, refuse_cropping
from vistrim.engine.cache.received import NOT_HELD, Received
from vistrim.engine.hooks import Call
from vistrim.engine.passes.forward import Forward
from vistrim.engine.passes.layer_cut import LayerPass
from vistrim.engine.passes.method_answers import check_counts, check_eviction
from vistrim.engine.tokens.masks import decode_mask, visible
from vistrim.engine.tokens.positions import lowered_arguments, own_positions
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.methods.base.stage_inputs import LayerTokens

Counts = tuple[int, ...]


@dataclass
class Decode(Forward):
    """A forward pass over one generated token per sample.

    Attributes
    ----------
    targets : list
        Number of visual tokens per sample that each layer keeps in this step. None: the layer is not cut.
    ranking : frozenset of int
        Layers whose attention is read in this step.
    evicts : bool
        Whether this step evicts tokens, or scores them.
    sliding : TokenMap or None
        The tokens that the intercepted layer sees, if it evicts one in this pass because its sliding window is full.
    """

    targets: list[Counts | None] = field(init=False)
    ranking: frozenset[int] = field(init=False, default=frozenset())
    evicts: bool = field(init=False, default=False)
    sliding: TokenMap | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        assert self.cache is not None
        layers = self.cache.layers
        step = layers[0].logical - layers[0].prompt_length + 1
        self.targets = [None] * len(layers)
        if not self.method.acts_in_decode:
            return
        if any(cached.evicts_next for cached in layers):
            self.recorder.window_ended_annealing = True
        self.targets = [self._target(cached, i, step) for i, cached in enumerate(layers)]
        self.ranking = self._ranking(layers, step)
        cuts = any(target is not None for target in self.targets)
        self.evicts = cuts or bool(self.ranking)
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
        self.intercepted = layer if layer in self.ranking else None
        # The oldest token is seen once more, and evicted before the scores are read.
        self.sliding = cached.columns() if layer in self.ranking and cached.evicts_next else None

    def _ranking(self, layers: list[Any], step: int) -> frozenset[int]:
        """Return the layers whose attention ranks tokens, in this step or in a later one."""
        if self.method.evicts_by == "prompt":
            return frozenset()
        if self.method.evicts_by == "answer":
            cut_later = {i for i, cached in enumerate(layers) if _can_be_cut(cached)}
        else:
            cut_later = {i for i, target in enumerate(self.targets) if i and target is not None}
            if self._target(layers[0], 0, step + 1, self.targets[0]) is not None:
                cut_later.add(0)
        # Layer 0 has no previous layer. Its own attention, up to the step before, ranks its tokens.
        return frozenset(max(0, i - 1) for i in cut_later)

    def plan_layer(self, layer: int) -> LayerPass | None:
        assert self.cache is not None
        cut = self.layer_cuts[layer]
        return cut.plan_decode(self.cache.layers[layer]) if cut is not None else None

    def read_scores(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        assert self.cache is not None
        cached = self.cache.layers[layer]
        seen = None if mask is None else mask[:, None] if mask.dim() == 2 else visible(mask)[:, 0]
        # All visual tokens are among the mapped columns. Later columns are generated text.
        scored = cached.tokens if self.sliding is None else self.sliding
        only = torch.zeros(len(query), 1, dtype=torch.long, device=query.device)
        asking = AttentionRows(query, key, seen, softmax, key.shape[2], only)
        scores = self.of_all_heads(asking).received()
        if seen is not None:
            # Tokens outside of the window count as evicted, even if they are still stored.
            scores = scores.masked_fill(~seen[:, 0], NOT_HELD)
        scores = scores[:, : scored.width]
        if cached.order is not None:
            scores = scores.gather(1, cached.order.to(scores.device))
        new, before = Received.by(scores, scored), cached.received
        averages = self.method.evicts_by == "answer" and before is not None
        cached.received = before.averaged_with(new, cached.logical) if averages else new

    def _target(self, cached: Any, layer: int, step: int, held: Counts | None = None) -> Counts | None:
        """Return the number of visual tokens per sample to keep, or None if that would remove nothing."""
        if not _can_be_cut(cached):
            return None
        held = held or cached.tokens.n_visual
        answer = self.method.decode_counts(layer, step, cached.initial, cached.left, self.spec.decoder_shape.layers)
        counts = check_counts(answer, self.method, len(held))
        if counts is None:
            return None
        target = tuple(map(min, counts, held))
        return None if target == held else target

    def _evict(self, layer: int, cached: Any, counts: Counts) -> None:
        assert self.cache is not None
        held: TokenMap = cached.tokens
        received = self.cache.layers[max(0, layer - 1)].received
        if received is None:
            # Cropped into the prompt.
            return
        tokens = LayerTokens(
            scores=received.among(held, cached.logical),
            visual=held.visual,
            held=held.n_visual,
            initial=cached.initial,
            depth=self.spec.decoder_shape.layers,
            numbers=partial(self._numbers, cached, held),
        )
        cached.keep(check_eviction(self.method.select_decode(layer, counts, tokens), self.method, counts, held))

    def _numbers(self, cached: Any, held: TokenMap) -> Tensor:
        """Return ``[batch, tokens]`` long: numbers of the visual tokens among those of all prompts, without padding."""
        seen = cached.seen_visual

        def make() -> Tensor:
            visual = torch.zeros(len(held.slots), cached.logical, dtype=torch.long)
            for row, slots in zip(visual, seen, strict=True):
                row[list(slots)] = 1
            return (visual.cumsum(1) - 1).to(held.slots.device)

        by_slot: Tensor = self.remember("numbers", seen, make)
        return by_slot.gather(1, held.slots)


def _can_be_cut(cached: Any) -> bool:
    """Whether a cache layer has visual tokens that can be evicted."""
    # A full window evicts tokens itself, and these are not counted.
    if cached.tokens is None or cached.initial is None or cached.evicts_next:
        return False
    return any(cached.tokens.n_visual)
