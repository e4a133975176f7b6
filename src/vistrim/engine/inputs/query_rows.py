"""Which rows of a prompt ask: the last prompt token, or text that the method chooses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.selection import kept_rows
from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.tokens.token_map import TokenMap


@dataclass(frozen=True)
class QueryRows:
    """Text tokens of a prompt; text is never removed, so that they are found again in every layer.

    Attributes
    ----------
    slots : Tensor
        ``[batch, n]`` long.
    counted : Tensor or None
        ``[batch, n]`` bool: False where a sample has fewer; None: all count.
    from_end : int or None
        How many rows from the end (1: the last) a single one is in every sample; None: it has to be looked for.
    """

    slots: Tensor
    counted: Tensor | None = None
    from_end: int | None = None

    @staticmethod
    def last_of(prompt: Prompt) -> QueryRows:
        """The last prompt token."""
        return QueryRows(prompt.ranking[:, None], None, prompt.ranking_from_end)

    @staticmethod
    def of(chosen: Tensor, tokens: TokenMap, prompt: Prompt) -> QueryRows:
        """Chosen rows (``[batch, rows]`` bool) of the given tokens; where a sample has none, its last prompt token."""
        counts = chosen.sum(1).tolist()
        index, counted = kept_rows(chosen, [max(1, n) for n in counts])
        last = prompt.ranking[:, None]
        found = torch.tensor(counts, device=chosen.device)[:, None] > 0
        return QueryRows(torch.where(counted & found, tokens.slots.gather(1, index), last), counted)

    def among(self, tokens: TokenMap) -> Tensor:
        """Rows ``[batch, n]`` at which they are now."""
        if self.from_end is not None:
            return torch.full_like(self.slots, tokens.width - self.from_end)
        known = torch.where(tokens.valid[:, None], tokens.slots[:, None], -1)
        return (known == self.slots[..., None]).to(torch.uint8).argmax(2)
