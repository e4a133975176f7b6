"""Cache layers that evict tokens but report to transformers the length without evictions.

Because the reported length is logical, ``generate``, position ids, masks, beam search, multi-turn use and assisted
decoding work unchanged. Only the tensors shrink. transformers does the same in its sliding-window layers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicSlidingWindowLayer

from vistrim.core.selection import Selection, gather_rows
from vistrim.core.structure import LayerStructure
from vistrim.engine.cache.holes import fill_holes
from vistrim.engine.cache.received import Received
from vistrim.engine.cache.spare_room import GrowingLayer
from vistrim.engine.tokens.positions import Shift
from vistrim.engine.tokens.token_map import TokenMap, add, take
from vistrim.errors import UnsupportedGenerationError


@dataclass(frozen=True)
class Incoming:
    """Description of the tokens that the next update will store.

    Attributes
    ----------
    length : int
        Number of tokens of this forward pass before trimming.
    tokens : TokenMap or None
        The tokens that are stored. None: all of them, and all are text.
    initial : tuple of int or None
        Number of their visual tokens that entered the decoder, per sample.
    trimmed : bool
        Whether tokens were removed or moved.
    shift : Shift or None
        Decrease of the RoPE position of the last token by renumbering.
    lacking : LayerStructure or None
        Heads in which their visual tokens have no keys or values. None: all are stored.
    """

    length: int
    tokens: TokenMap | None = None
    initial: tuple[int, ...] | None = None
    trimmed: bool = False
    shift: Shift | None = None
    lacking: LayerStructure | None = None


GENERATED = Incoming(1)
"""One generated token per sample."""


_OF_THE_LAYER = {"keys", "values", "take_columns", "can_move_columns", "move_columns"}


class Trimmable:
    """Mixin for a dynamic cache layer. The class attributes are the state of a layer without evictions."""

    tokens: TokenMap | None = None
    """Map of the first columns. They are followed by consecutive text tokens from slot ``tail`` on."""
    order: Tensor | None = None
    """``[batch, mapped columns]`` long: column of each mapped token, if eviction moved columns. None: in order."""
    tail: int = 0
    logical: int = 0
    """Number of tokens seen so far, including removed ones."""
    initial: tuple[int, ...] | None = None
    """Number of visual tokens of all prompts so far that entered the decoder, per sample."""
    left: tuple[int, ...] | None = None
    """Number of visual tokens of all prompts so far that this layer held after prefill, per sample."""
    seen_visual: tuple[tuple[int, ...], ...] | None = None
    """Slots of the visual tokens of all prompts so far, before trimming, per sample."""
    shift: Shift | None = None
    """Decrease of the RoPE position of the following tokens by renumbering; None: no change."""
    prompt_length: int = 0
    """``logical`` at the end of the last prefill."""
    received: Received | None = None
    """Attention that the tokens have received in this layer since the last prompt began. None: it was not read."""
    crop_limit: int = 0
    """Slot below which the cache cannot be cropped, because a layer has lost tokens before it."""
    crop_limit_if_trimmed: int = 0
    incoming: Incoming | None = None
    is_trimmed: bool = False
    """Whether columns do not match a mask for the logical length, or have no keys or values in some heads."""
    lacking: LayerStructure | None = None
    """Heads in which visual tokens have zeros instead of keys or values; None: all are stored."""

    keys: Tensor
    values: Tensor
    take_columns: Callable[[Tensor], None]
    """Replaces the stored columns by ``[batch, columns]`` of them."""
    can_move_columns: Callable[[int], bool]
    move_columns: Callable[[Tensor, Tensor, int], None]

    @property
    def stored(self) -> int:
        """Number of columns of the tensors."""
        return 0 if self.logical == 0 else self.keys.shape[-2]

    def columns(self, device: torch.device | None = None) -> TokenMap:
        """Build the map of all columns, on ``device`` if the layer is empty (its own device may be another GPU)."""
        device = self.tokens.slots.device if self.tokens is not None else device or self.keys.device
        tail = TokenMap.text(self.keys.shape[0], self.tail, self.logical - self.tail, device)
        everything = tail if self.tokens is None else self.tokens.followed_by(tail)
        # A sliding window evicts the first columns.
        evicted = everything.width - self.stored
        return everything.without_first(evicted) if evicted else everything

    @property
    def is_plain(self) -> bool:
        """Whether a generated token attends to all columns and has the position assigned by the model."""
        return self.shift is None and (self.tokens is None or not any(self.tokens.n_invalid))

    @property
    def held(self) -> tuple[int, ...]:
        """Number of stored tokens per sample, without padding."""
        if self.tokens is None:
            return (self.stored,) * self.keys.shape[0] if self.stored else ()
        return tuple(self.stored - n for n in self.tokens.n_invalid)

    @property
    def full_length(self) -> int:
        """Number of columns that the layer would hold if nothing had been removed."""
        return self.logical

    @property
    def visual_entries(self) -> tuple[int, int]:
        """Number of visual tokens of all samples that are stored, and that would be if nothing had been removed."""
        if self.seen_visual is None:
            return 0, 0
        since = self.logical - self.full_length
        full = sum(len(slots) - bisect_left(slots, since) for slots in self.seen_visual)
        return sum(self.tokens.n_visual) if self.tokens is not None else full, full

    def note_visual(self, slots: tuple[tuple[int, ...], ...]) -> None:
        """Add the slots of the visual tokens of a prompt, per sample."""
        before = self.seen_visual or ((),) * len(slots)
        self.seen_visual = tuple(old + new for old, new in zip(before, slots, strict=True))

    def keep(self, selection: Selection) -> None:
        """Evict the visual tokens among the mapped columns that the selection does not keep."""
        assert self.tokens is not None
        index, tokens = self.tokens.keep(selection)
        generated = self.stored - self.tokens.width
        left = index.shape[1] + generated
        ragged = any(self.tokens.n_invalid) or any(tokens.n_invalid)
        if not ragged and self.can_move_columns(left):
            moves = fill_holes(index, self.order, self.tokens.width, generated)
            self.move_columns(moves.sources, moves.targets, left)
            self.order = moves.order
        else:
            self._take_tokens(index)
        self.tokens, self.is_trimmed = tokens, True

    def straighten(self) -> None:
        """Put the columns in the order of their tokens."""
        if self.order is not None:
            self._take_tokens(torch.arange(self.order.shape[1], device=self.order.device).expand_as(self.order))

    def _take_tokens(self, index: Tensor) -> None:
        """Keep only the mapped tokens ``index`` ``[batch, tokens]``, in this order, and the columns after them."""
        assert self.tokens is not None
        following = torch.arange(self.tokens.width, self.stored, device=index.device).expand(len(index), -1)
        columns = index if self.order is None else self.order.gather(1, index)
        self.take_columns(torch.cat([columns, following], 1))
        self.order = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            self._note(incoming)
        elif self.is_trimmed:
            raise UnsupportedGenerationError(
                "this KV cache was trimmed by vistrim and cannot be continued without it: "
                "generate inside `with vistrim.trim(...)`, or start with a new cache"
            )
        self.logical += key_states.shape[-2] if incoming is None else incoming.length
        return super().update(key_states, value_states, *args, **kwargs)  # type: ignore[misc]

    def _note(self, incoming: Incoming) -> None:
        """Store the description of incoming tokens, except for their number."""
        if incoming.tokens is not None:
            here = incoming.tokens.slots.device
            self.tokens = self.columns(here).followed_by(incoming.tokens) if self.logical else incoming.tokens
            self.tail = self.logical + incoming.length
            self.received = None
            new = incoming.initial or (0,) * len(incoming.tokens.n_visual)
            self.initial = add(self.initial, new) if self.initial else new
            left = incoming.tokens.n_visual
            self.left = add(self.left, left) if self.left else left
        if incoming.shift is not None:
            self.shift = self.shift.and_then(incoming.shift) if self.shift else incoming.shift
        if incoming.lacking is not None:
            self.lacking = incoming.lacking
        self.is_trimmed |= incoming.trimmed or incoming.lacking is not None

    def get_seq_length(self) -> int:
        return self.logical

    def crop(self, tokens_to_remove: int) -> None:
        shorter = self.logical - abs(tokens_to_remove)
        if self.tail > shorter:
            self.straighten()
        if shorter < self.crop_limit:
            raise UnsupportedGenerationError(
                "a trimmed KV cache cannot be cropped into its images: crop less, or start with a new cache"
            )
        super().crop(tokens_to_remove)  # type: ignore[misc]
        self.logical = shorter
        if self.seen_visual is not None:
            self.seen_visual = tuple(slots[: bisect_left(slots, shorter)] for slots in self.seen_visual)
        if self.tokens is not None and self.tail > shorter:
            before = self.tokens.n_visual
            self.tokens = self.tokens.without_last(self.tail - shorter)
            self.tail = shorter
            # Rows of the tokens that are gone are part of it.
            self.received = None
            if self.initial is not None:
                lost = (old - new for old, new in zip(before, self.tokens.n_visual, strict=True))
                gone = tuple(lost)
                self.initial = tuple(n - g for n, g in zip(self.initial, gone, strict=True))
                self.left = tuple(n - g for n, g in zip(self.left or self.initial, gone, strict=True))
        self._tell_length()

    def note_padding(self, mask: Tensor) -> None:
        """Store the padding ``[batch, slots]`` of tokens that were cached before the model was trimmed."""
        if self.tokens is None and self.logical:
            text = self.columns(mask.device)
            valid = mask.gather(1, text.slots)
            n_invalid = tuple((~valid).sum(1).tolist())
            self.tokens = replace(text, valid=valid, n_invalid=n_invalid)
            self.tail = self.logical

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        for name in Trimmable.__annotations__.keys() - _OF_THE_LAYER:
            self.__dict__.pop(name, None)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._take_samples(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._take_samples(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        batch = self.keys.shape[0] if self.logical else 0
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self._take_samples(torch.arange(batch).repeat_interleave(repeats))

    def _take_samples(self, index: Tensor) -> None:
        before = self.tokens
        if self.tokens is not None:
            self.tokens = self.tokens.samples(index)
        if self.received is not None:
            # Usually the same map.
            same = self.received.tokens is before
            self.received = self.received.samples(index, self.tokens if same else None)
        if self.initial is not None:
            self.initial = take(self.initial, index)
            self.left = take(self.left, index) if self.left is not None else None
        if self.seen_visual is not None:
            self.seen_visual = take(self.seen_visual, index)
        if self.shift is not None:
            self.shift = self.shift.samples(index)
        if self.order is not None:
            self.order = self.order[index.to(self.order.device)]

    @property
    def evicts_next(self) -> bool:
        """Whether storing another token may evict one from a sliding window."""
        return False

    def _tell_length(self) -> None:
        """Update the token count of the base class, if it has one."""


class TrimmableLayer(Trimmable, GrowingLayer):
    """Full-attention layer."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.logical + query_length, 0


class TrimmableSlidingLayer(Trimmable, DynamicSlidingWindowLayer):
    """Sliding-window layer.

    The base class keeps the last ``sliding_window - 1`` stored columns, which cover at least the window in logical
    distance. The mask hides the columns outside the window. Only merged tokens that were moved share places with
    others. If the window is shorter than the prompt, some of them may be evicted while still in the window.
    """

    @property
    def full_length(self) -> int:
        """Number of columns without removals."""
        return min(self.logical, self.sliding_window - 1)

    @property
    def is_plain(self) -> bool:
        return False

    @property
    def evicts_next(self) -> bool:
        return self.logical + 1 >= self.sliding_window

    def can_move_columns(self, left: int) -> bool:
        """Return False: a full window moves all columns at every step anyway."""
        return False

    def take_columns(self, index: Tensor) -> None:
        """Keep only the columns ``index`` ``[batch, columns]``."""
        self.keys, self.values = gather_rows(self.keys, index, 0, 2), gather_rows(self.values, index, 0, 2)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        states = super().update(key_states, value_states, *args, **kwargs)
        self._tell_length()
        if self.tokens is not None and self.stored < self.tokens.width + self.logical - self.tail:
            self.tokens, self.tail = self.columns(), self.logical
        return states

    def _tell_length(self) -> None:
        self.cumulative_length = self.logical


def refuse_cropping(layers: list[Any]) -> None:
    """Make all layers refuse a crop that one of them cannot do, so that none of them is cropped first."""
    for layer in layers:
        layer.crop_limit = layer.crop_limit_if_trimmed
