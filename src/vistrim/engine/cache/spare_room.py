"""Keys and values with spare room, so that a decoding step writes and removes columns without copying the layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from vistrim.core.selection import gather_rows

WORTH_ROOM = 1 << 18
"""Size of the keys in bytes above which copying them takes longer than managing spare room."""

MOST_ROOM = 2
"""Factor by which a buffer may exceed its used columns after removals. Beyond it, they are copied to a smaller one."""


def room_for(columns: int) -> int:
    """Return the number of spare columns: 3 % more memory for a long cache, and one copy per this many steps."""
    return 8 + columns // 32


@dataclass(frozen=True)
class Room:
    """A tensor with spare room, and the view of it that is in use.

    Attributes
    ----------
    buffer : Tensor
        ``[batch, heads, columns + room, width]``.
    used : Tensor
        ``[batch, heads, columns, width]``, the first columns of ``buffer``.
    users : int or None
        Number of users of the memory, as long as it belongs to this object alone. None: unknown.
    """

    buffer: Tensor
    used: Tensor
    users: int | None

    @staticmethod
    def of(buffer: Tensor, columns: int) -> Room:
        """Use the first columns of a new tensor, which only the caller holds."""
        used = buffer.narrow(2, 0, columns)
        return Room(buffer, used, users_of(buffer))

    def using(self, columns: int) -> Room:
        """Use the first columns."""
        return replace(self, used=self.buffer.narrow(2, 0, columns))

    @staticmethod
    def holding(held: Tensor, new: Tensor) -> Room:
        """Concatenate tensors ``[batch, heads, n, width]`` in a new tensor with spare room."""
        batch, heads, columns, width = held.shape
        room = room_for(columns + new.shape[2])
        buffer = held.new_empty(batch, heads, columns + new.shape[2] + room, width)
        buffer.narrow(2, 0, columns).copy_(held)
        return Room.of(buffer, columns).with_behind(new)

    def takes(self, held: Tensor, new: Tensor) -> bool:
        """Whether ``new`` fits into the spare room, and the cache layer still holds the view in use."""
        return held is self.used and held.shape[2] + new.shape[2] <= self.buffer.shape[2] and self.is_writable

    @property
    def is_writable(self) -> bool:
        """Whether the buffer may be modified: tensors created in inference mode only there."""
        return not self.buffer.is_inference() or torch.is_inference_mode_enabled()

    @property
    def is_alone(self) -> bool:
        """Whether no other tensor, such as a view kept by the caller, shares the memory."""
        return self.users is not None and users_of(self.buffer) == self.users

    def moved(self, sources: Tensor, targets: Tensor, columns: int) -> Room:
        """Copy the columns ``sources`` to ``targets``, ``[batch, n]`` each, and use the first ``columns``."""
        columns_moved = gather_rows(self.buffer, sources, 0, 2)
        batch, heads, length, width = self.buffer.shape
        # Whole rows are written with one flat copy, twice as fast as `scatter_` with an expanded index.
        first = length * torch.arange(batch * heads, device=self.buffer.device).view(batch, heads, 1)
        places = first + targets.to(self.buffer.device)[:, None]
        self.buffer.view(-1, width).index_copy_(0, places.flatten(), columns_moved.view(-1, width))
        return self.using(columns)

    def with_behind(self, new: Tensor) -> Room:
        """Write ``new`` after the columns in use."""
        columns = self.used.shape[2]
        self.buffer.narrow(2, columns, new.shape[2]).copy_(new)
        return self.using(columns + new.shape[2])


def users_of(tensor: Tensor) -> int | None:
    """Count the users of the memory of a tensor, such as its views. None: this release of torch does not tell."""
    # There is no public function.
    count = getattr(torch._C, "_storage_Use_Count", None)
    return count(tensor.untyped_storage()._cdata) if count is not None else None


def behind(room: Room | None, held: Tensor, new: Tensor) -> Room:
    """Append ``new`` ``[batch, heads, n, width]`` to ``held``, in its spare room if possible, otherwise in a copy."""
    return room.with_behind(new) if room is not None and room.takes(held, new) else Room.holding(held, new)


def whole(room: Room | None, held: Tensor) -> Tensor:
    """Return the tensor that starts with the columns of ``held``: the one with spare room, or ``held`` itself."""
    return room.buffer if room is not None and room.used is held else held


def alike(held: Tensor, new: Tensor) -> bool:
    """Whether concatenation is a plain copy: dtype, device and all other sizes are equal."""
    return held.dtype == new.dtype and held.device == new.device and held.shape[:2] == new.shape[:2]


class GrowingLayer(DynamicLayer):
    """Full-attention layer that writes generated tokens into spare room where possible.

    The first tokens, those of the prompt, are copied into new memory in any case. That copy already has spare room, so
    that the first decoding step does not copy the layer again.

    Attributes
    ----------
    room : tuple of Room or None
        Spare room of keys and values. None: there is none.
    """

    room: tuple[Room, Room] | None = None
    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        held = self.keys.nbytes if self.is_initialized else 0
        small = held + key_states.nbytes < WORTH_ROOM
        if not held and not small:
            # Makes empty tensors of the right shape, dtype and device.
            super().update(key_states[:, :, :0], value_states[:, :, :0], *args, **kwargs)
        # Tensors saved by autograd must not be modified.
        if small or torch.is_grad_enabled() or not alike(self.keys, key_states):
            self.room = None
            return super().update(key_states, value_states, *args, **kwargs)
        keys, values = self.room or (None, None)
        self._use(behind(keys, self.keys, key_states), behind(values, self.values, value_states))
        return self.keys, self.values

    def take_columns(self, index: Tensor) -> None:
        """Keep only the columns ``index`` ``[batch, columns]``, in new memory."""
        columns = index.shape[1]
        with_room = self.keys.nbytes >= WORTH_ROOM and not torch.is_grad_enabled()
        if with_room:
            # The spare room is gathered together with them, from an arbitrary column.
            index = pad(index, (0, room_for(columns)))
        rooms = self.room or (None, None)
        # Gather from the whole buffer, which is contiguous. A view would first be copied.
        sources = whole(rooms[0], self.keys), whole(rooms[1], self.values)
        keys, values = (gather_rows(source, index, 0, 2) for source in sources)
        if with_room:
            self._use(Room.of(keys, columns), Room.of(values, columns))
        else:
            self.room, self.keys, self.values = None, keys, values

    def can_move_columns(self, left: int) -> bool:
        """Whether columns can be moved within the memory of the layer, so that the first ``left`` remain.

        That memory has to belong to this layer alone, and not to be much larger than necessary.
        """
        if self.room is None or torch.is_grad_enabled():
            return False
        return all(
            room.used is held and room.is_writable and room.is_alone and room.buffer.shape[2] <= MOST_ROOM * left
            for room, held in zip(self.room, (self.keys, self.values), strict=True)
        )

    def move_columns(self, sources: Tensor, targets: Tensor, left: int) -> None:
        """Copy the columns ``sources`` to ``targets``, ``[batch, n]`` each, and keep the first ``left``."""
        assert self.room is not None
        keys, values = self.room
        self._use(keys.moved(sources, targets, left), values.moved(sources, targets, left))

    def _use(self, keys: Room, values: Room) -> None:
        self.room = keys, values
        self.keys, self.values = keys.used, values.used

    def __getstate__(self) -> dict[str, Any]:
        # A copy must not write into the same buffer.
        return {name: value for name, value in vars(self).items() if name != "room"}

    def reset(self) -> None:
        super().reset()
        self.room = None

    # These methods replace keys and values. The old tensors must be released.

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.room = None

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.room = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.room = None
