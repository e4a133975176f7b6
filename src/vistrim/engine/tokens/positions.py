"""RoPE positions of tokens that do not keep their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistrim.core.selection import Selection, gather_rows
from vistrim.engine.tokens.token_map import TokenMap, add, take
from vistrim.errors import UnsupportedGenerationError


@dataclass(frozen=True)
class Shift:
    """By how much the RoPE position of whatever comes next is lower than the model believes.

    Attributes
    ----------
    amounts : tuple of int
        Per sample; known without waiting for the device, so that layers can share what is made of equal ones.
    tensor : Tensor
        ``[batch, 1]`` long: the same on the device.
    """

    amounts: tuple[int, ...]
    tensor: Tensor

    def and_then(self, later: Shift) -> Shift:
        """Both together."""
        return Shift(add(self.amounts, later.amounts), self.tensor + later.tensor)

    def samples(self, index: Tensor) -> Shift:
        """The samples in another order, or several times."""
        return Shift(take(self.amounts, index), self.tensor[index.to(self.tensor.device)])


@dataclass(frozen=True)
class Renumbering:
    """How one forward pass has changed the positions of its tokens.

    Attributes
    ----------
    lowered : Tensor
        ``[batch, rows]`` long: position that the model gives to a row's token, minus the one that it has now.
    shift : Shift
        The same for the last token of each sample, and so for whatever follows it.
    """

    lowered: Tensor
    shift: Shift

    @staticmethod
    def none(tokens: TokenMap) -> Renumbering:
        """Every token has its own position."""
        nothing = torch.zeros_like(tokens.slots)
        return Renumbering(nothing, Shift((0,) * len(nothing), nothing[:, -1:]))

    def after(
        self, selection: Selection, before: TokenMap, index: Tensor, left: TokenMap, own: Tensor, past: int
    ) -> Renumbering:
        """Positions after a cut (waits for the device if it renumbers).

        Parameters
        ----------
        selection : Selection
            The cut.
        before, left : TokenMap
            The rows before it, and those that are left.
        index : Tensor
            ``[batch, rows left]`` long: the old row behind each new one.
        own : Tensor
            ``[batch or 1, tokens]`` long: the model's position ids of the whole forward pass.
        past : int
            Slot of its first token.
        """
        if not selection.renumber:
            return Renumbering(self.lowered.gather(1, index), self.shift)
        device = self.lowered.device
        now = gather_rows(own, before.slots - past, 0, 1).to(device) - self.lowered
        start = now.gather(1, before.valid.to(torch.uint8).argmax(1, keepdim=True))
        new = start + left.valid.cumsum(1) - 1
        lowered = gather_rows(own, left.slots - past, 0, 1).to(device) - new
        # Gaps that were there before are closed too, so that counting the tokens of this cut would not do.
        last = lowered[:, -1:]
        return Renumbering(lowered, Shift(tuple(last[:, 0].tolist()), last))


def own_positions(arguments: Mapping[str, Any]) -> Tensor:
    """The model's position ids ``[batch or 1, tokens]`` in a layer's arguments.

    Raises
    ------
    UnsupportedGenerationError
        If the model does not give them to its layers.
    """
    own: Tensor | None = arguments.get("position_ids")
    if own is None:
        raise UnsupportedGenerationError(
            "the layers of this model are not told the positions of their tokens, which therefore cannot get others: "
            "use positions=original"
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
    """Position ids and RoPE tables of a layer call whose tokens have other positions than the model believes.

    Parameters
    ----------
    rotary : callable
        Makes the tables of hidden states at given positions.
    hidden : Tensor
        ``[batch, rows, hidden]``: for their type and device.
    own : Tensor
        ``[batch or 1, tokens]`` long: the model's position ids.
    rows : Tensor
        ``[batch, rows]`` long: which of them the layer has.
    lowered : Tensor or None
        ``[batch, rows]`` long: what this forward pass takes off.
    shift : Shift or None
        What earlier ones take off.
    """
    positions = gather_rows(own, rows, 0, 1)
    if lowered is not None:
        positions = positions - lowered.to(positions.device)
    if shift is not None:
        positions = positions - shift.tensor.to(positions.device)
    # Padding may be in front of everything; its position is never used. Positions may come from another GPU.
    positions = positions.clamp(min=0).to(hidden.device)
    return {"position_embeddings": rotary(hidden, positions), "position_ids": positions}
