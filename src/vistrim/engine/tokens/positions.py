"""RoPE positions of tokens that are renumbered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vistrim.core.selection import Selection, gather_rows
from vistrim.engine.tokens.token_map import TokenMap, take
from vistrim.errors import UnsupportedGenerationError


@dataclass(frozen=True)
class Shift:
    """Decrease of the RoPE positions of the following tokens, relative to the position ids of the model.

    Attributes
    ----------
    tensor : Tensor
        ``[batch, 1]`` long: decrease per sample.
    known : tuple of int or None
        The same on the host, if it is known there.
    """

    tensor: Tensor
    known: tuple[int, ...] | None = None

    @cached_property
    def amounts(self) -> tuple[int, ...]:
        """Decrease per sample, by which layers with equal shifts share tensors.

        Synchronizes with the device if it is not known, but only in a later pass than that of the cut.
        """
        return tuple(self.tensor[:, 0].tolist()) if self.known is None else self.known

    def and_then(self, later: Shift) -> Shift:
        """Add a later shift."""
        return Shift(self.tensor + later.tensor)

    def samples(self, index: Tensor) -> Shift:
        """Select samples, in any order and with repetition."""
        return Shift(self.tensor[index.to(self.tensor.device)], take(self.amounts, index))


@dataclass(frozen=True)
class Renumbering:
    """Change of the positions of the tokens in one forward pass.

    Attributes
    ----------
    lowered : Tensor
        ``[batch, rows]`` long: position id of the model minus current position.
    shift : Shift
        The same for the last token of each sample, and for all following tokens.
    """

    lowered: Tensor
    shift: Shift

    @staticmethod
    def none(tokens: TokenMap) -> Renumbering:
        """Keep all positions."""
        nothing = torch.zeros_like(tokens.slots)
        return Renumbering(nothing, Shift(nothing[:, -1:]))

    def after(
        self, selection: Selection, before: TokenMap, index: Tensor, left: TokenMap, own: Tensor, past: int
    ) -> Renumbering:
        """Compute the positions after a cut.

        Parameters
        ----------
        selection : Selection
            The cut.
        before, left : TokenMap
            The rows before the cut, and the remaining rows.
        index : Tensor
            ``[batch, remaining rows]`` long: the old row of each new row.
        own : Tensor
            ``[batch or 1, tokens]`` long: position ids of the model for the whole forward pass.
        past : int
            Slot of the first token of the forward pass.
        """
        if not selection.renumber:
            return Renumbering(self.lowered.gather(1, index), self.shift)
        device = self.lowered.device
        now = gather_rows(own, before.slots - past, 0, 1).to(device) - self.lowered
        start = now.gather(1, before.valid.to(torch.uint8).argmax(1, keepdim=True))
        new = start + left.valid.cumsum(1) - 1
        lowered = gather_rows(own, left.slots - past, 0, 1).to(device) - new
        # Earlier gaps are closed as well, so counting the tokens of this cut would not be enough.
        return Renumbering(lowered, Shift(lowered[:, -1:]))


def own_positions(arguments: Mapping[str, Any]) -> Tensor:
    """Find the position ids ``[batch or 1, tokens]`` in the arguments of a layer.

    Raises
    ------
    UnsupportedGenerationError
        If the model does not pass them to its layers.
    """
    own: Tensor | None = arguments.get("position_ids")
    if own is None:
        raise UnsupportedGenerationError(
            "the layers of this model get no position ids, so their tokens cannot be renumbered: use positions=original"
        )
    return own


def lowered_arguments(
    rotary: Callable[[Tensor, Tensor], Any],
    hidden: Tensor,
    own: Tensor,
    rows: Tensor,
    lowered: Tensor | None,
    shift: Shift | None,
) -> dict[str, Any]:
    """Compute the position ids and RoPE tables of a layer whose tokens are renumbered.

    Parameters
    ----------
    rotary : callable
        Computes the tables for given positions.
    hidden : Tensor
        ``[batch, rows, hidden]``. Only the dtype and device are used.
    own : Tensor
        ``[batch or 1, tokens]`` long: position ids of the model.
    rows : Tensor
        ``[batch, rows]`` long: indices of the rows of the layer.
    lowered : Tensor or None
        ``[batch, rows]`` long: decrease in this forward pass.
    shift : Shift or None
        Decrease in earlier forward passes.
    """
    positions = gather_rows(own, rows, 0, 1)
    if lowered is not None:
        positions = positions - lowered.to(positions.device)
    if shift is not None:
        positions = positions - shift.tensor.to(positions.device)
    # Positions of left padding may become negative but are never used. Positions may come from another GPU.
    positions = positions.clamp(min=0).to(hidden.device)
    return {"position_embeddings": rotary(hidden, positions), "position_ids": positions}
