"""Ranking rows of a prompt: the last prompt token, or text chosen by the method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.selection import kept_rows
from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.tokens.token_map import TokenMap


@dataclass(frozen=True)
class QueryRows:
    """Ranking rows. They are text, which is never removed, so they exist in every layer.

    Attributes
    ----------
    slots : Tensor
        ``[batch, n]`` long: the slots of the rows.
    counted : Tensor or None
        ``[batch, n]`` bool, False where a sample has fewer rows. None: all rows count.
    from_end : int or None
        Index from the end (1: the last) of a single row, if it is the same in every sample.
    """

    slots: Tensor
    counted: Tensor | None = None
    from_end: int | None = None

    @staticmethod
    def last_of(prompt: Prompt) -> QueryRows:
        """Use the last prompt token."""
        return QueryRows(prompt.ranking[:, None], None, prompt.ranking_from_end)

    @staticmethod
    def of(chosen: Tensor, tokens: TokenMap, prompt: Prompt) -> QueryRows:
        """Use the rows ``chosen`` ``[batch, rows]`` bool, or the last prompt token of samples without any."""
        counts = chosen.sum(1).tolist()
        index, counted = kept_rows(chosen, [max(1, n) for n in counts])
        last = prompt.ranking[:, None]
        found = torch.tensor(counts, device=chosen.device)[:, None] > 0
        return QueryRows(torch.where(counted & found, tokens.slots.gather(1, index), last), counted)

    def among(self, tokens: TokenMap) -> Tensor:
        """Find the current indices ``[batch, n]`` of the rows."""
        if self.from_end is not None:
            return torch.full_like(self.slots, tokens.width - self.from_end)
        known = torch.where(tokens.valid[:, None], tokens.slots[:, None], -1)
        return (known == self.slots[..., None]).to(torch.uint8).argmax(2)
