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
    """Columns of room behind so many: about 3 % more memory, so that a copy comes once in as many steps."""
    return 8 + columns // 32


def behind(room: Room | None, held: Tensor, new: Tensor) -> Room:
    """Put ``new`` ``[batch, heads, n, width]`` behind ``held``, into its room or, if that will not do, into a copy."""
    if room is not None and room.takes(held, new):
        return room.with_behind(new)
    return Room.holding(held, new)


def whole(room: Room | None, held: Tensor) -> Tensor:
    """Return the tensor that has ``held`` in its first columns: the one with the room, or itself."""
    return room.buffer if room is not None and room.used is held else held


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
    def holding(held: Tensor, new: Tensor) -> Room:
        """Copy tensors ``[batch, heads, n, width]``, one behind the other, into a new tensor with room."""
        batch, heads, columns, width = held.shape
        room = room_for(columns + new.shape[2])
        buffer = held.new_empty(batch, heads, columns + new.shape[2] + room, width)
        buffer.narrow(2, 0, columns).copy_(held)
        return Room.of(buffer, columns).with_behind(new)

    @staticmethod
    def of(buffer: Tensor, columns: int) -> Room:
        """The first columns of a tensor in use."""
        return Room(buffer, buffer.narrow(2, 0, columns))

    def takes(self, held: Tensor, new: Tensor) -> bool:
        """Whether ``new`` fits behind what is in use, and that is still what the cache layer holds."""
        if held is not self.used or held.shape[2] + new.shape[2] > self.buffer.shape[2]:
            return False
        # Tensors that were made in inference mode cannot be written outside of it.
        writable = not self.buffer.is_inference() or torch.is_inference_mode_enabled()
        return writable and new.dtype == held.dtype and new.device == held.device

    def with_behind(self, new: Tensor) -> Room:
        """Write ``new`` behind what is in use."""
        columns = self.used.shape[2]
        self.buffer.narrow(2, columns, new.shape[2]).copy_(new)
        return Room.of(self.buffer, columns + new.shape[2])


class GrowingLayer(DynamicLayer):
    """Full-attention layer that writes a generated token into the room behind the others, where it can.

    Attributes
    ----------
    room : tuple of Room or None
        Behind keys and values; None: there is none.
    owner : int
        Whose it is: copies of a layer must not write into the same room.
    """

    room: tuple[Room, Room] | None = None
    owner: int = 0
    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        # What autograd has saved must not be written to.
        if not self.is_initialized or self.keys.nbytes < WORTH_ROOM or torch.is_grad_enabled():
            self.room = None
            return super().update(key_states, value_states, *args, **kwargs)
        keys, values = self._own_room()
        self._use(behind(keys, self.keys, key_states), behind(values, self.values, value_states))
        return self.keys, self.values

    def take_columns(self, index: Tensor) -> None:
        """Hold the columns ``index`` ``[batch, columns]`` and no others, in memory of their own."""
        columns = index.shape[1]
        with_room = self.keys.nbytes >= WORTH_ROOM and not torch.is_grad_enabled()
        if with_room:
            # It is copied along with them, from any column.
            index = pad(index, (0, room_for(columns)))
        keys, values = self._own_room()
        # Out of the whole buffer, whose rows lie one behind the other: of a part they would first be copied together.
        self.keys = gather_rows(whole(keys, self.keys), index, 0, 2)
        self.values = gather_rows(whole(values, self.values), index, 0, 2)
        if with_room:
            self._use(Room.of(self.keys, columns), Room.of(self.values, columns))

    def _own_room(self) -> tuple[Room | None, Room | None]:
        return self.room if self.room is not None and self.owner == id(self) else (None, None)

    def _use(self, keys: Room, values: Room) -> None:
        self.room, self.owner = (keys, values), id(self)
        self.keys, self.values = keys.used, values.used

    def reset(self) -> None:
        super().reset()
        self.room = None
