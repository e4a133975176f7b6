"""RoPE positions of tokens that do not keep their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.core.selection import Selection, gather_rows
from vistrim.engine.tokens import TokenMap


@dataclass(frozen=True)
class Renumbering:
    """How one forward pass has changed the positions of its tokens.

    Attributes
    ----------
    lowered : Tensor
        ``[batch, rows]`` long: position that the model gives to a row's token, minus the one that it has now.
    shift : tuple of int
        The same for the last token of each sample, and so for whatever follows it.
    """

    lowered: Tensor
    shift: tuple[int, ...]

    @staticmethod
    def none(tokens: TokenMap) -> Renumbering:
        """Every token has its own position."""
        return Renumbering(torch.zeros_like(tokens.slots), (0,) * tokens.slots.shape[0])

    def after(
        self, selection: Selection, before: TokenMap, index: Tensor, left: TokenMap, own: Tensor, past: int
    ) -> Renumbering:
        """Positions after a cut.

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
        gone = (held - kept for held, kept in zip(before.n_visual, left.n_visual, strict=True))
        return Renumbering(lowered, tuple(old + n for old, n in zip(self.shift, gone, strict=True)))


def lowered_arguments(
    rotary: nn.Module,
    hidden: Tensor,
    own: Tensor,
    rows: Tensor,
    lowered: Tensor | None,
    shift: tuple[int, ...] | None,
) -> dict[str, Any]:
    """Position ids and RoPE tables of a layer call whose tokens have other positions than the model believes.

    Parameters
    ----------
    rotary : nn.Module
        Makes the tables.
    hidden : Tensor
        ``[batch, rows, hidden]``: for their type and device.
    own : Tensor
        ``[batch or 1, tokens]`` long: the model's position ids.
    rows : Tensor
        ``[batch, rows]`` long: which of them the layer has.
    lowered : Tensor or None
        ``[batch, rows]`` long: what this forward pass takes off.
    shift : tuple of int or None
        What earlier ones take off, per sample.
    """
    positions = gather_rows(own, rows, 0, 1)
    if lowered is not None:
        positions = positions - lowered.to(positions.device)
    if shift is not None:
        positions = positions - torch.tensor(shift, device=positions.device)[:, None]
    # Padding may be in front of everything; its position is never used.
    positions = positions.clamp(min=0)
    return {"position_embeddings": rotary(hidden, positions), "position_ids": positions}
