"""Attention that the tokens of a cache layer have received, by which tokens are evicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.engine.tokens.token_map import TokenMap

NOT_HELD = -1.0
"""Score of a token that the ranking layer no longer holds or sees. It is below every attention weight."""


@dataclass(frozen=True)
class Received:
    """Attention received in one layer, mean over heads and ranking rows.

    The tokens may since have been evicted from the layer.

    Attributes
    ----------
    scores : Tensor
        ``[batch, tokens]`` float32, on the device of ``tokens``.
    tokens : TokenMap
        The tokens.
    steps : int
        Number of forward passes over which the scores are averaged.
    """

    scores: Tensor
    tokens: TokenMap
    steps: int = 1

    @staticmethod
    def by(scores: Tensor, tokens: TokenMap) -> Received:
        """Store the scores ``[batch, tokens]`` of one forward pass."""
        return Received(scores.to(tokens.slots.device), tokens)

    def among(self, held: TokenMap, length: int) -> Tensor:
        """Find the scores of other tokens of the same sequence.

        Parameters
        ----------
        held : TokenMap
            Tokens, such as those of the next layer.
        length : int
            Length of the untrimmed sequence.

        Returns
        -------
        Tensor
            ``[batch, tokens of held]`` float32. `NOT_HELD` for tokens without a score.
        """
        if held is self.tokens:
            return self.scores
        scores, scored = self.scores.to(held.slots.device), self.tokens
        by_slot = scores.new_full((scores.shape[0], length + 1), NOT_HELD)
        place = torch.where(scored.valid, scored.slots, length) if any(scored.n_invalid) else scored.slots
        return by_slot.scatter_(1, place.to(scores.device), scores).gather(1, held.slots)

    def averaged_with(self, new: Received, length: int) -> Received:
        """Average with the scores of a further step, which are missing for tokens that are no longer held."""
        before = self.among(new.tokens, length)
        steps = self.steps + 1
        mean = before + (new.scores - before) / steps
        return Received(mean.masked_fill((before < 0) | (new.scores < 0), NOT_HELD), new.tokens, steps)

    def samples(self, index: Tensor, tokens: TokenMap | None = None) -> Received:
        """Select samples. ``tokens``: their tokens, if they are known."""
        scores = self.scores[index.to(self.scores.device)]
        return Received(scores, self.tokens.samples(index) if tokens is None else tokens, self.steps)
