"""Prefill: cuts before layers, and the layer inputs of the remaining tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from vistrim.core.applying import replace_hidden
from vistrim.core.query_text import text_behind_images
from vistrim.core.scores import AttentionRows, Softmax
from vistrim.core.selection import Selection, gather_rows
from vistrim.engine.attention.flash import refuse_packed
from vistrim.engine.attention.look_ahead import ProjectedKeys, queries_and_keys
from vistrim.engine.cache.layers import Incoming, refuse_cropping
from vistrim.engine.cache.received import Received
from vistrim.engine.hooks import Call
from vistrim.engine.inputs.packed_rows import mask_separates_rows, refuse_in_packed_rows
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.engine.inputs.question import question_rows
from vistrim.engine.inputs.tower import TowerRecord
from vistrim.engine.passes.deepstack import Merge
from vistrim.engine.passes.layer_cut import LayerPass
from vistrim.engine.passes.layer_inputs import LayerInputs
from vistrim.engine.passes.method_answers import check_query_rows, check_scores, check_selection
from vistrim.engine.tokens.compaction import compact_hidden, restore_length
from vistrim.engine.tokens.masks import visible_to_rows
from vistrim.engine.tokens.positions import Renumbering, own_positions
from vistrim.errors import UnsupportedGenerationError
from vistrim.methods.base.stage_inputs import InputTokens, LayerTokens


@dataclass(kw_only=True)
class Prefill(LayerInputs):
    """A forward pass over a prompt with images, or over further text after one.

    Attributes
    ----------
    cuts : frozenset of int
        Layers before which the method cuts.
    vision : TowerRecord or None
        Record of the vision tower, if the method reads it.
    guidance : Tensor or None
        ``[samples, prompt tokens]`` float32: scores from the guide model, if the method uses one.
    question : Tensor or None
        ``[batch, hidden]``: embedding of the questions by the decoder, if the method reads it.
    entered : tuple of int
        Number of visual tokens that entered the decoder, per sample.
    merges : list of Merge
        The merges of this pass.
    asking : QueryRows
        The ranking rows.
    attention : AttentionRows or None
        Attention of these rows in the layer intercepted last.
    tables : tuple of Tensor or None
        RoPE tables of the rows that the current layer processes, if they are cosines and sines.
    windowed : Tensor or None
        ``[batch, 1, rows, columns]`` bool: visible columns in the intercepted layer, if its own mask does not determine
        them.
    packed : bool
        Whether a row contains several packed samples.
    earlier : list of Tensor
        ``[batch, rows]`` float32 each: scores at the layers since the last cut, without the layer before the next one,
        for a method that averages them.
    """

    cuts: frozenset[int]
    vision: TowerRecord | None
    guidance: Tensor | None
    question: Tensor | None
    entered: tuple[int, ...] = field(init=False)
    merges: list[Merge] = field(default_factory=list)
    asking: QueryRows = field(init=False)
    attention: AttentionRows | None = None
    tables: tuple[Tensor, Tensor] | None = None
    windowed: Tensor | None = None
    packed: bool = False
    earlier: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entered = self.tokens.n_visual
        self.asking = QueryRows.last_of(self.prompt)
        if not any(self.entered):
            self.cuts = frozenset()
        elif self.method.ranks_by == "guide" and self.guidance is None:
            raise UnsupportedGenerationError(
                f"{self.method.name} ranks by the answer of a guide model in model.generate(), which a bare forward "
                "pass does not have: call model.generate(..., max_new_tokens=1)"
            )

    @property
    def left(self) -> tuple[Tensor | None, Sequence[Merge]]:
        return self.rows, self.merges

    def before_layer(self, layer: int, hidden: Tensor, kwargs: Call) -> tuple[Tensor, Call] | None:
        cached = self.cache.layers[layer] if self.cache is not None else None
        if layer == 0:
            self._detect_packing(kwargs)
        if layer == 0 and any(self.entered):
            with self.recorder.selecting():
                hidden = self._enter(hidden, kwargs)
        if layer in self.cuts:
            with self.recorder.selecting():
                hidden = self._cut(layer, hidden, self._select_at(layer, hidden, kwargs), kwargs)
            self.earlier.clear()
        read_for_cut = self._ranks(layer)
        self.intercepted = layer if read_for_cut or self._ranks_evictions(layer) else None
        self._note_window(cached, ranks=read_for_cut)
        changed = self.arguments(layer, hidden, kwargs)
        self.tables = _cosines_and_sines(kwargs | changed)
        self.windowed = self.windowed_mask(layer) if self.intercepted is not None else None
        self.recorder.layer_ran(self.tokens.width, self.cached(layer), self.tokens)
        if cached is not None:
            shift = self.renumbering.shift if self.renumbering is not None else None
            cut = self.layer_cuts[layer]
            lacking = cut.lacking if cut is not None and any(self.tokens.n_visual) else None
            cached.incoming = Incoming(self.length, self.tokens, self.entered, self.trimmed, shift, lacking)
        return hidden, changed

    def plan_layer(self, layer: int) -> LayerPass | None:
        cut = self.layer_cuts[layer]
        return cut.plan_prefill(layer, self) if cut is not None else None

    def read_scores(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        with self.recorder.selecting():
            if self._ranks(layer):
                rows = self.asking.among(self.tokens)
                self.attention = self._attention(gather_rows(query, rows, 0, 2), key, mask, softmax, rows)
                if layer + 1 not in self.cuts:
                    self.earlier.append(self._scores(self.attention))
            if self._ranks_evictions(layer):
                self._rank_evictions(layer, query, key, mask, softmax)

    def _ranks(self, layer: int) -> bool:
        """Whether the attention of a layer ranks the tokens of the next cut."""
        if self.method.ranks_by != "layer before":
            return False
        return layer + 1 in self.cuts or (self.method.averages_layers and layer < max(self.cuts, default=0))

    def _ranks_evictions(self, layer: int) -> bool:
        """Whether the attention of a layer in this pass ranks evictions while decoding."""
        if self.cache is None or not self.method.acts_in_decode:
            return False
        return layer == 0 or (self.method.evicts_by != "token" and layer + 1 < len(self.cache.layers))

    @cached_property
    def asking_decode(self) -> QueryRows:
        """The ranking rows of this pass for evictions while decoding."""
        if self.method.evicts_by != "prompt":
            return QueryRows.last_of(self.prompt)
        question = text_behind_images(self.tokens.visual, self._in_prompt())
        return QueryRows.of(question, self.tokens, self.prompt)

    def _rank_evictions(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        """Store the attention that the columns of a layer receive, of earlier turns as well."""
        assert self.cache is not None
        cached, asking = self.cache.layers[layer], self.asking_decode
        if cached.tokens is None:
            # transformers 5.23 gives no cache to layers that it recomputes in training.
            return
        rows = asking.among(self.tokens)
        counted = asking.counted.to(query.device) if asking.counted is not None else None
        row, seen = gather_rows(query, rows, 0, 2), self._seen(mask, asking, rows, key)
        attention = AttentionRows(row, key, seen, softmax, key.shape[2], rows.to(key.device), counted)
        # A sliding window has already lost the first columns.
        scores = self.of_all_heads(attention).received()[:, -cached.tokens.width :]
        cached.received = Received.by(scores, cached.tokens)

    def _scores(self, attention: AttentionRows) -> Tensor:
        """Let the method compute scores ``[batch, rows]`` from the attention of a layer."""
        visual = self.tokens.visual
        scores = check_scores(self.method.score(attention, visual), self.method, self.tokens)
        return scores.to(visual.device)

    def restored(self, hidden: Tensor) -> Tensor:
        if not self.trimmed:
            return hidden
        if self.cache is not None:
            refuse_cropping(self.cache.layers)
        return restore_length(hidden, self.places, self.tokens.valid, self.length)

    def _detect_packing(self, kwargs: Call) -> None:
        """Detect several packed samples in a row, and refuse methods and kernels that do not support them."""
        mask = kwargs.get("attention_mask")
        if self.flash:
            refuse_packed(mask, kwargs)
        elif any(self.entered):
            padded = self.prompt.inputs.padding_mask is not None
            self.packed = self.prompt.packed or (not padded and mask_separates_rows(mask))
        if self.packed and any(self.layer_cuts):
            refuse_in_packed_rows(self.method.name)

    def _check_end(self, layer: int) -> None:
        """Check and record a cut that depends on the end of the prompt."""
        asks = self.method.ranks_by != "nothing" or self.method.reads_prompt
        depends = asks if layer > 0 else self.method.reads_question or self.method.reads_words
        if self.packed and (layer > 0 or depends):
            refuse_in_packed_rows(self.method.name)
        if depends:
            self.recorder.ranked_by_row_end |= not self.prompt.told
            self.recorder.ranked_in_doubt |= self.prompt.in_doubt

    def _enter(self, hidden: Tensor, kwargs: Call) -> Tensor:
        """Apply the cut before the decoder, and let the method choose the ranking rows."""
        if "input" in self.method.stages:
            selection = self._checked("input", self._select_input(hidden), hidden)
            hidden = self._cut(0, hidden, selection, kwargs)
            self.entered = self.tokens.n_visual
        if self.cuts:
            prompt = self._in_prompt()
            chosen = self.method.query_rows(hidden, self.tokens.visual, prompt)
            asking = check_query_rows(chosen, self.method, self.tokens, prompt)
            if asking is not None:
                self.asking = QueryRows.of(asking, self.tokens, self.prompt)
        return hidden

    def _select_input(self, hidden: Tensor) -> Any:
        images, visual = self.prompt.images, self.tokens.visual
        inputs = self.prompt.inputs
        vision = None
        if self.vision is not None:
            vision = self.vision.tokens(inputs.placeholders, inputs.stays, visual.device)
        return self.method.select_input(
            InputTokens(
                embeddings=hidden,
                visual=visual,
                images=images.count(visual),
                grids=tuple(tuple(picture.grid for picture in own) for own in images.of_sample),
                image_of=images.number,
                whole=images.whole,
                words=question_rows(self.prompt) if self.method.reads_words else None,
                vision=vision,
                depth=self.spec.decoder_shape.layers,
                guidance=self._guidance() if self.guidance is not None else None,
                question=self.question,
            )
        )

    def _select_at(self, layer: int, hidden: Tensor, kwargs: Call) -> Selection | None:
        visual = self.tokens.visual
        if self.method.ranks_by == "nothing":
            scores = torch.zeros_like(visual, dtype=torch.float32)
        elif self.method.ranks_by == "guide":
            scores = self._guidance()
        else:
            if self.method.ranks_by == "layer ahead":
                self.attention = self._look_ahead(layer, hidden, kwargs)
            assert self.attention is not None
            scores = self._scores(self.attention)
            if self.earlier:
                scores = torch.stack([*self.earlier, scores]).mean(0)
        tokens = LayerTokens(
            scores=scores,
            visual=visual,
            held=self.tokens.n_visual,
            initial=self.entered,
            depth=self.spec.decoder_shape.layers,
            images=self._images(),
            hidden=hidden,
            attention=self.attention,
            prompt=self._in_prompt(),
            norm=self._normalized if self.method.reads_features else None,
        )
        return self._checked("prefill", self.method.select_prefill(layer, tokens), hidden)

    def _images(self) -> tuple[int, ...]:
        """Number of images, tiles and frames per sample, if the method counts them: that synchronizes."""
        if not self.method.counts_images:
            return (1,) * len(self.entered)
        return tuple(map(len, self.prompt.images.of_sample))

    def _checked(self, stage: str, answer: Any, hidden: Tensor) -> Selection | None:
        return check_selection(answer, self.method, stage, self.tokens, hidden, self.recorder.in_prefill)

    @torch.no_grad()
    def _normalized(self, hidden: Tensor) -> Tensor:
        """Apply the final normalization of the decoder, which may be on another device."""
        norm = self.spec.norm
        assert norm is not None
        weight = next(norm.parameters(), None)
        there = hidden.device if weight is None or weight.is_meta else weight.device
        return norm(hidden.to(there)).to(hidden.device)

    def _guidance(self) -> Tensor:
        """Return the guide model's scores of the current rows, ``[batch, rows]``."""
        assert self.guidance is not None
        slots = self.tokens.slots
        # Several answers to one prompt share its scores.
        known = self.guidance.to(slots.device).repeat_interleave(slots.shape[0] // len(self.guidance), 0)
        # The prompt is followed by drafts or, without a cache, by the answer so far.
        return pad(known, (0, self.length - known.shape[1])).gather(1, slots)

    def _in_prompt(self) -> Tensor:
        """Return ``[batch, rows]`` bool, False for padding and for tokens after the prompt."""
        return self.tokens.valid & (self.tokens.slots <= self.prompt.ranking[:, None])

    def _look_ahead(self, layer: int, hidden: Tensor, kwargs: Call) -> AttentionRows:
        """Compute the attention of the next layer on the current tokens."""
        cached = self.cache.layers[layer] if self.cache is not None else None
        self._note_window(cached, ranks=True)
        arguments = kwargs | self.arguments(layer, hidden, kwargs)
        self.tables = _cosines_and_sines(arguments)
        self.windowed = self.windowed_mask(layer)
        rows = self.asking.among(self.tokens).to(hidden.device)
        self.looks_ahead = True
        # Keys that are needed for gradients are projected by the layer itself.
        self.projected = None if torch.is_grad_enabled() else ProjectedKeys(layer)
        try:
            query, key, softmax = queries_and_keys(self.spec.layers[layer], hidden, arguments, rows)
        finally:
            self.looks_ahead = False
        if cached is not None and cached.logical:
            if cached.keys.shape[1::2] != key.shape[1::2]:
                raise UnsupportedGenerationError(
                    "the cache of this model holds latents, so keys of earlier turns are not available before a layer "
                    "runs: use a method that ranks by the previous layer, such as fastv"
                )
            key = torch.cat([cached.keys, key], 2)
        return self._attention(*self.looking(layer, query, key), arguments.get("attention_mask"), softmax, rows)

    def _attention(
        self, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax, rows: Tensor
    ) -> AttentionRows:
        seen = self._seen(mask, self.asking, rows, key)
        # Layers may be on a different device from these tensors.
        counted = self.asking.counted.to(query.device) if self.asking.counted is not None else None
        tables = (self.tables[0].to(query.device), self.tables[1].to(query.device)) if self.tables is not None else None
        width = self.tokens.width
        return self.of_all_heads(
            AttentionRows(query, key, seen, softmax, width, rows.to(query.device), counted, tables)
        )

    def _seen(self, mask: Tensor | None, asking: QueryRows, rows: Tensor, key: Tensor) -> Tensor | None:
        """Return the columns that the ranking rows may attend to, ``[batch, n, columns]`` bool. None: all."""
        mask = mask if self.windowed is None else self.windowed
        if mask is None and asking.from_end == 1:
            return None
        return visible_to_rows(mask, rows.to(key.device), self.tokens.width, key.shape[2]).to(key.device)

    def _note_window(self, cached: Any, ranks: bool) -> None:
        """Record whether the ranking layer may not see all visual tokens."""
        window = getattr(cached, "sliding_window", None)
        if ranks and window is not None and self.past + self.length > window:
            self.recorder.window_hides_images = True

    def _cut(self, layer: int, hidden: Tensor, selection: Selection | None, kwargs: Call) -> Tensor:
        before = self.tokens
        if selection is None or (selection.hidden is None and selection.counts == before.n_visual):
            return hidden
        self._check_end(layer)
        index, self.tokens = before.keep(selection)
        if selection.renumber or self.renumbering is not None:
            own = own_positions(kwargs)
            renumbering = self.renumbering or Renumbering.none(before)
            self.renumbering = renumbering.after(selection, before, index, self.tokens, own, self.past)
        if selection.merge_into is not None:
            self.merges.append(Merge(before.slots - self.past, selection.merge_into))
        self.trimmed = True
        self.memo.clear()
        self.recorder.cut(layer, before, selection, self.tokens)
        if selection.hidden is not None or selection.merge_into is not None:
            self.projected = None
        elif self.projected is not None:
            self.projected.keep(index)
        if selection.hidden is not None:
            hidden = replace_hidden(hidden, selection.changed, selection.hidden)
        return compact_hidden(hidden, index, selection.merge_into)


def _cosines_and_sines(arguments: Call) -> tuple[Tensor, Tensor] | None:
    tables = arguments["position_embeddings"]
    return tables if isinstance(tables, tuple) else None
