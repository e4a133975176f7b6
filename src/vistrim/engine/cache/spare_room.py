"""Keys and values with room behind them, so that a decoding step writes one column instead of copying a whole layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from vistrim.core.selection import gather_rows

WORTH_ROOM = 1 << 18
"""Bytes of keys from which copying them takes longer than managing room for them."""


def room_for(columns: int) -> int:
    """Columns of room behind so many: a little more memory (3 % of a long cache), and a copy once in as many steps."""
    return 8 + columns // 32


@dataclass(frozen=True)
class Room:
    """A tensor with room, and the view of it that is in use.

    Attributes
    ----------
    buffer : Tensor
        ``[batch, heads, columns + room, width]``.
    used : Tensor
        ``[batch, heads, columns, width]``, the first columns of ``buffer``.
    """

    buffer: Tensor
    used: Tensor

    @staticmethod
    def of(buffer: Tensor, columns: int) -> Room:
        """The first columns of a tensor in use."""
        return Room(buffer, buffer.narrow(2, 0, columns))

    @staticmethod
    def holding(held: Tensor, new: Tensor) -> Room:
        """Copy tensors ``[batch, heads, n, width]``, one behind the other, into a new tensor with room."""
        batch, heads, columns, width = held.shape
        room = room_for(columns + new.shape[2])
        buffer = held.new_empty(batch, heads, columns + new.shape[2] + room, width)
        buffer.narrow(2, 0, columns).copy_(held)
        return Room.of(buffer, columns).with_behind(new)

    def takes(self, held: Tensor, new: Tensor) -> bool:
        """Whether ``new`` fits behind what is in use, and that is still what the cache layer holds."""
        if held is not self.used or held.shape[2] + new.shape[2] > self.buffer.shape[2]:
            return False
        # Tensors that were made in inference mode cannot be written outside of it.
        return not self.buffer.is_inference() or torch.is_inference_mode_enabled()

    def with_behind(self, new: Tensor) -> Room:
        """Write ``new`` behind what is in use."""
        columns = self.used.shape[2]
        self.buffer.narrow(2, columns, new.shape[2]).copy_(new)
        return Room.of(self.buffer, columns + new.shape[2])


def behind(room: Room | None, held: Tensor, new: Tensor) -> Room:
    """Put ``new`` ``[batch, heads, n, width]`` behind ``held``, into its room or, if that will not do, into a copy."""
    return room.with_behind(new) if room is not None and room.takes(held, new) else Room.holding(held, new)


def whole(room: Room | None, held: Tensor) -> Tensor:
    """Return the tensor that has ``held`` in its first columns: the one with the room, or itself."""
    return room.buffer if room is not None and room.used is held else held


def alike(held: Tensor, new: Tensor) -> bool:
    """Whether concatenating is nothing but copying: the number type, the device and all other sizes are the same."""
    return held.dtype == new.dtype and held.device == new.device and held.shape[:2] == new.shape[:2]


class GrowingLayer(DynamicLayer):
    """Full-attention layer that writes a generated token into the room behind the others, where it can.

    Attributes
    ----------
    room : tuple of Room or None
        Behind keys and values; None: there is none.
    """

    room: tuple[Room, Room] | None = None
    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        small = not self.is_initialized or self.keys.nbytes < WORTH_ROOM
        # What autograd has saved must not be written to.
        if small or torch.is_grad_enabled() or not alike(self.keys, key_states):
            self.room = None
            return super().update(key_states, value_states, *args, **kwargs)
        keys, values = self.room or (None, None)
        self._use(behind(keys, self.keys, key_states), behind(values, self.values, value_states))
        return self.keys, self.values

    def take_columns(self, index: Tensor) -> None:
        """Hold the columns ``index`` ``[batch, columns]`` and no others, in memory of their own."""
        columns = index.shape[1]
        with_room = self.keys.nbytes >= WORTH_ROOM and not torch.is_grad_enabled()
        if with_room:
            # It is copied along with them, from any column.
            index = pad(index, (0, room_for(columns)))
        rooms = self.room or (None, None)
        # Out of the whole buffer, whose rows lie one behind the other: of a part they would first be copied together.
        sources = whole(rooms[0], self.keys), whole(rooms[1], self.values)
        keys, values = (gather_rows(source, index, 0, 2) for source in sources)
        if with_room:
            self._use(Room.of(keys, columns), Room.of(values, columns))
        else:
            self.room, self.keys, self.values = None, keys, values

    def _use(self, keys: Room, values: Room) -> None:
        self.room = keys, values
        self.keys, self.values = keys.used, values.used

    def __getstate__(self) -> dict[str, Any]:
        # A copy must not write into the same room.
        return {name: value for name, value in vars(self).items() if name != "room"}

    def reset(self) -> None:
        super().reset()
        self.room = None

    # Each of these replaces keys and values; the tensors that they were in must not be held on to.

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.room = None

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.room = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.room = None
