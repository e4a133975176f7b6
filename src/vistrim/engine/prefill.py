"""Prefill: cut tokens before a layer, and give the layer the inputs of those that are left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vistrim.core.scores import attention_received
from vistrim.core.selection import Selection
from vistrim.engine.cache import Incoming, refuse_cropping
from vistrim.engine.compaction import compact_arguments, compact_hidden, restore_length
from vistrim.engine.forward import Forward
from vistrim.engine.masks import layer_mask, visible, visible_to_row
from vistrim.engine.prompt import Prompt
from vistrim.engine.tokens import TokenMap
from vistrim.methods.base import InputTokens, LayerTokens


@dataclass(kw_only=True)
class Prefill(Forward):
    """A forward pass over a prompt with images, or over more text behind one.

    Attributes
    ----------
    prompt : Prompt
        The tokens before trimming.
    cuts : frozenset of int
        Layers before which the method is asked.
    tokens : TokenMap
        The rows that the current layer processes.
    trimmed : bool
        Whether rows have been removed in this pass.
    """

    prompt: Prompt
    cuts: frozenset[int]
    tokens: TokenMap = field(init=False)
    trimmed: bool = False

    def __post_init__(self) -> None:
        self.tokens = self.prompt.tokens
        if not any(self.tokens.n_visual):
            self.cuts = frozenset()

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        if layer in self.cuts or (layer == 0 and "input" in self.method.stages and any(self.tokens.n_visual)):
            with self.recorder.selecting():
                hidden = self._cut(layer, hidden)
        self.tapped = layer if layer + 1 in self.cuts or (layer == 0 and self.method.acts_in_decode) else None
        changed: dict[str, Any] = {}
        cached = self.cache.layers[layer] if self.cache is not None else None
        if self.trimmed:
            alive = kwargs["position_embeddings"], kwargs.get("position_ids")
            rows = self.tokens.slots - self.past
            changed |= self.remember(("arguments", *map(id, alive)), alive, lambda: compact_arguments(*alive, rows))
        if self.trimmed or (cached is not None and cached.is_trimmed):
            changed["attention_mask"] = self._mask(cached, kwargs.get("attention_mask"))
        self.recorder.layer_ran(self.tokens.width, self.cached(layer), self.tokens)
        if cached is not None:
            cached.incoming = Incoming(self.length, self.tokens, self.prompt.tokens.n_visual, self.trimmed)
        return hidden, changed

    def read_scores(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
        with self.recorder.selecting():
            row, seen = self._ranking_row(query, key.shape[2], mask)
            scores = attention_received(row, key, seen, scaling)
            self.scores = scores[:, -self.tokens.width :]
            if layer == 0 and self.cache is not None:
                self.cache.layers[0].scores = scores

    def _ranking_row(self, query: Tensor, columns: int, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Query ``[batch, heads, 1, head_dim]`` of the last prompt token, and what it sees, ``[batch, 1, columns]``."""
        length = query.shape[2]
        from_end = self.prompt.ranking_from_end
        if from_end == 1:
            return query[:, :, -1:], None if mask is None else visible(mask[:, 0, -1:])
        if from_end is not None:
            rows = torch.full((query.shape[0],), length - from_end, device=query.device)
        else:
            at_ranking = (self.tokens.slots == self.prompt.ranking[:, None]) & self.tokens.valid
            rows = at_ranking.to(torch.uint8).argmax(1).to(query.device)
        row = query[torch.arange(query.shape[0], device=query.device), :, rows][:, :, None]
        return row, visible_to_row(mask, rows, length, columns)

    def restored(self, hidden: Tensor) -> Tensor:
        if not self.trimmed:
            return hidden
        if self.cache is not None:
            refuse_cropping(self.cache.layers)
        return restore_length(hidden, self.tokens.slots - self.past, self.tokens.valid, self.length)

    def _cut(self, layer: int, hidden: Tensor) -> Tensor:
        tokens = self.tokens
        selection = self._select_input(hidden) if layer == 0 else self._select_at(layer)
        if selection is None or selection.counts == tokens.n_visual:
            return hidden
        index, self.tokens = tokens.keep(selection)
        self.trimmed = True
        self.memo.clear()
        self.recorder.cut(layer, self.tokens)
        return compact_hidden(hidden, index, selection.merge_into)

    def _select_input(self, hidden: Tensor) -> Selection | None:
        images = self.prompt.images_per_sample()
        return self.method.select_input(InputTokens(hidden, self.tokens.visual, images, self.spec.grid))

    def _select_at(self, layer: int) -> Selection | None:
        assert self.scores is not None
        tokens = LayerTokens(
            scores=self.scores.to(self.tokens.visual.device),
            visual=self.tokens.visual,
            held=self.tokens.n_visual,
            initial=self.prompt.tokens.n_visual,
            depth=self.spec.decoder_shape.layers,
        )
        return self.method.select_prefill(layer, tokens)

    def _mask(self, cached: Any, mask: Tensor | None) -> Tensor | None:
        held = cached.tokens if cached is not None else None

        def make() -> Tensor | None:
            keys = cached.columns().followed_by(self.tokens) if cached is not None and cached.logical else self.tokens
            kv_offset = cached.get_mask_sizes(self.length)[1] if cached is not None else 0
            return layer_mask(mask, keys, self.tokens, self.past, kv_offset)

        return self.remember(("mask", id(mask), id(held)), (mask, held), make)
