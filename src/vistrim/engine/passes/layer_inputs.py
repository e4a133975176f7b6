"""Inputs of a layer in a trimmed prefill: positions, RoPE tables and masks of the remaining tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from vistrim.engine.attention.flash import flash_mask, looks_back
from vistrim.engine.hooks import Call
from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.passes.forward import Forward
from vistrim.engine.tokens.compaction import PER_TOKEN, compact_arguments
from vistrim.engine.tokens.masks import layer_mask
from vistrim.engine.tokens.positions import Renumbering, lowered_arguments, own_positions
from vistrim.engine.tokens.token_map import TokenMap


@dataclass(kw_only=True)
class LayerInputs(Forward):
    """Common part of all prefills: the inputs of a layer after cuts.

    Attributes
    ----------
    prompt : Prompt
        The tokens before trimming.
    tokens : TokenMap
        The rows that the current layer processes.
    trimmed : bool
        Whether rows have been removed in this pass.
    renumbering : Renumbering or None
        Change of the positions in this pass. None: all tokens keep their positions.
    """

    prompt: Prompt
    tokens: TokenMap = field(init=False)
    trimmed: bool = False
    renumbering: Renumbering | None = None

    def __post_init__(self) -> None:
        self.tokens = self.prompt.tokens

    @property
    def places(self) -> Tensor:
        """Index in this pass of the token of each row, ``[batch, rows]`` long."""
        slots = self.tokens.slots
        return self.remember("places", slots, lambda: slots - self.past) if self.past else slots

    @property
    def rows(self) -> Tensor | None:
        return self.places if self.trimmed else None

    @property
    def drops_positions(self) -> bool:
        return self.flash

    def columns(self, layer: int) -> TokenMap:
        """Build the map of the tokens that the rows of the next layer can attend to."""
        cached = self.cache.layers[layer] if self.cache is not None else None
        if cached is None or not cached.logical:
            return self.tokens
        held, here = cached.tokens, self.tokens.slots.device
        return self.remember(
            ("columns", id(held), cached.stored), held, lambda: cached.columns(here).followed_by(self.tokens)
        )

    def arguments(self, layer: int, hidden: Tensor, kwargs: Call) -> Call:
        """Compute the keyword arguments of a layer that change because of removed tokens."""
        changed: Call = {}
        cached = self.cache.layers[layer] if self.cache is not None else None
        tables = kwargs["position_embeddings"]
        earlier = cached.shift if cached is not None else None
        if self.renumbering is not None or earlier is not None:
            own = own_positions(kwargs)
            lowered = self.renumbering.lowered if self.renumbering is not None else None
            changed |= self.remember(
                ("lowered", id(tables), id(own), earlier.amounts if earlier is not None else None),
                (tables, own),
                lambda: lowered_arguments(partial(self.spec.rotary, layer), hidden, own, self.places, lowered, earlier),
            )
        elif self.trimmed:
            alive = tables, *(kwargs.get(name) for name in PER_TOKEN)
            changed |= self.remember(
                ("arguments", *map(id, alive)), alive, lambda: compact_arguments(kwargs, self.places)
            )
        cut = self.layer_cuts[layer]
        maps = self.flash and cut is not None and cut.brings_kernel
        if self.trimmed or (cached is not None and cached.is_trimmed) or maps:
            changed["attention_mask"] = self._mask(layer, kwargs.get("attention_mask"), maps)
        return changed

    def _mask(self, layer: int, mask: Tensor | None, maps: bool) -> Tensor | None:
        """Build the mask of the remaining rows and columns. ``maps``: for a kernel other than FlashAttention."""
        cached = self.cache.layers[layer] if self.cache is not None else None
        keys, window, causal = self.columns(layer), self.windows[layer], looks_back(self.spec.attentions[layer])

        def make() -> Tensor | None:
            if self.flash:
                return flash_mask(keys, self.tokens, window, causal, maps)
            kv_offset = cached.get_mask_sizes(self.length)[1] if cached is not None else 0
            return layer_mask(mask, keys, self.tokens, self.past, kv_offset)

        return self.remember(("mask", id(mask), id(keys), window, causal, maps), (mask, keys), make)

    def windowed_mask(self, layer: int) -> Tensor | None:
        """Build the mask of rows and columns of a layer whose FlashAttention is not determined by its own mask."""
        knows = self.windows[layer] is not None or not looks_back(self.spec.attentions[layer])
        return self._mask(layer, None, True) if self.flash and knows else None
