"""Map from the rows of a trimmed tensor to the tokens of the full sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from vistrim.core.applying import order_after_moves
from vistrim.core.selection import Selection, kept_rows

T = TypeVar("T")


@dataclass(frozen=True)
class TokenMap:
    """Map from the rows of hidden states or of a cache to tokens.

    Counts are stored as Python numbers to avoid device synchronization.

    Attributes
    ----------
    slots : Tensor
        ``[batch, rows]`` long: index of the token in the full, untrimmed sequence, including padding.
    places : Tensor
        ``[batch, rows]`` long: slots that are non-decreasing along the rows, for indexing a mask of the full sequence.
        A token that was moved has the place of the token before it.
    valid : Tensor
        ``[batch, rows]`` bool, False for padding, including that of a ragged batch.
    visual : Tensor
        ``[batch, rows]`` bool, True for valid visual tokens.
    merged : Tensor
        ``[batch, rows]`` bool, True for visual tokens that represent several tokens, because others were merged into
        them or they were replaced.
    n_visual, n_invalid : tuple of int
        Number of visual and of invalid rows per sample.
    in_order : bool
        Whether no token was moved.
    """

    slots: Tensor
    places: Tensor
    valid: Tensor
    visual: Tensor
    merged: Tensor
    n_visual: tuple[int, ...]
    n_invalid: tuple[int, ...]
    in_order: bool = True

    @staticmethod
    def text(batch: int, first: int, length: int, device: torch.device) -> TokenMap:
        """Create the map of ``length`` consecutive text tokens from slot ``first`` on."""
        slots = torch.arange(first, first + length, device=device).expand(batch, -1)
        nothing = torch.zeros_like(slots, dtype=torch.bool)
        return TokenMap(slots, slots, ~nothing, nothing, nothing, (0,) * batch, (0,) * batch)

    @property
    def width(self) -> int:
        """Number of rows, including padding."""
        return self.slots.shape[1]

    @property
    def n_valid(self) -> tuple[int, ...]:
        """Number of valid tokens per sample."""
        return tuple(self.width - n for n in self.n_invalid)

    @property
    def n_text(self) -> tuple[int, ...]:
        """Number of text tokens per sample."""
        return tuple(valid - visual for valid, visual in zip(self.n_valid, self.n_visual, strict=True))

    @cached_property
    def text_rows(self) -> tuple[Tensor, Tensor]:
        """Rows of the text ``[batch, maximum text]``, padded on the left, and which of them are not padding."""
        return kept_rows(self.valid & ~self.visual, self.n_text)

    def keep(self, selection: Selection) -> tuple[Tensor, TokenMap]:
        """Compute the rows that remain after a selection: its visual tokens and all text.

        Returns
        -------
        index : Tensor
            ``[batch, new rows]`` long: the old row of each new row.
        tokens : TokenMap
            The map of the new rows.
        """
        text = self.valid & ~self.visual
        counts = [kept + n for kept, n in zip(selection.counts, self.n_text, strict=True)]
        keep = text | (selection.keep & self.visual)
        if selection.behind is None:
            index, valid = kept_rows(keep, counts)
        else:
            order = order_after_moves(selection.behind)
            index, valid = kept_rows(keep.gather(1, order), counts)
            index = order.gather(1, index)
        fillers = any(count < index.shape[1] for count in counts)

        def left(flags: Tensor) -> Tensor:
            return flags.gather(1, index) & valid if fillers else flags.gather(1, index)

        slots = self.slots.gather(1, index)
        # Until a token is moved, they are the same.
        places = slots if self.places is self.slots else self.places.gather(1, index)
        if selection.behind is not None:
            places = torch.where(valid, places, 0).cummax(1).values
        merged = self.merged
        if selection.merge_into is not None:
            absorbs = torch.zeros_like(merged.to(torch.uint8))
            merges = selection.merge_into >= 0
            absorbs.scatter_reduce_(1, selection.merge_into.clamp(min=0), merges.to(torch.uint8), "amax")
            merged = merged | absorbs.bool()
        if selection.hidden is not None:
            merged = merged | (selection.changed & self.visual)
        return index, TokenMap(
            slots=slots,
            places=places,
            valid=valid,
            visual=left(self.visual),
            merged=left(merged),
            n_visual=selection.counts,
            n_invalid=tuple(index.shape[1] - n for n in counts),
            in_order=self.in_order and selection.behind is None,
        )

    def followed_by(self, other: TokenMap) -> TokenMap:
        """Concatenate this map with another."""
        return TokenMap(
            torch.cat([self.slots, other.slots], 1),
            torch.cat([self.places, other.places], 1),
            torch.cat([self.valid, other.valid], 1),
            torch.cat([self.visual, other.visual], 1),
            torch.cat([self.merged, other.merged], 1),
            add(self.n_visual, other.n_visual),
            add(self.n_invalid, other.n_invalid),
            self.in_order and other.in_order,
        )

    def without_first(self, rows: int) -> TokenMap:
        """Remove the first rows, as after the eviction of a sliding window."""
        return self._split(gone=slice(0, rows), left=slice(rows, None))

    def without_last(self, rows: int) -> TokenMap:
        """Remove the last rows, as after a crop."""
        end = self.width - rows
        return self._split(gone=slice(end, None), left=slice(0, end))

    def _split(self, gone: slice, left: slice) -> TokenMap:
        gone_visual = self.visual[:, gone].sum(1).tolist()
        gone_invalid = (~self.valid[:, gone]).sum(1).tolist()
        return TokenMap(
            self.slots[:, left],
            self.places[:, left],
            self.valid[:, left],
            self.visual[:, left],
            self.merged[:, left],
            tuple(n - lost for n, lost in zip(self.n_visual, gone_visual, strict=True)),
            tuple(n - lost for n, lost in zip(self.n_invalid, gone_invalid, strict=True)),
            self.in_order,
        )

    def samples(self, index: Tensor) -> TokenMap:
        """Select samples, in any order and with repetition."""
        index = index.to(self.slots.device)
        return TokenMap(
            self.slots[index],
            self.places[index],
            self.valid[index],
            self.visual[index],
            self.merged[index],
            take(self.n_visual, index),
            take(self.n_invalid, index),
            self.in_order,
        )


def add(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """Add counts per sample."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def take(values: tuple[T, ...], index: Tensor) -> tuple[T, ...]:
    """Select the values of the samples ``index``. If all values are equal, ``index`` is not read from the device."""
    if len(set(values)) == 1:
        return values[:1] * len(index)
    return tuple(values[i] for i in index.tolist())
