"""Sampling row by row: each row has its own temperature, nucleus and random numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

GREEDY = 1e-5
"""Below this temperature, the most likely token is taken: dividing logits by less would overflow."""


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen.

    Attributes
    ----------
    temperature : float
        0, or next to nothing: the most likely token.
    top_p : float
        Share of the probability mass of the most likely tokens to choose from, in (0, 1].
    seed : int
        Seed of the random numbers.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @staticmethod
    def of_model(generation_config: Any) -> "Sampling":
        """Return the sampling that a model's own settings ask for."""
        if not generation_config.do_sample:
            return Sampling()
        temperature, top_p = generation_config.temperature, generation_config.top_p
        return Sampling(1.0 if temperature is None else temperature, 1.0 if top_p is None else top_p)


class RowSampler(LogitsProcessor):
    """Adds Gumbel noise to the scores of rows that are sampled, so that the largest score is a sample.

    The greedy search of ``generate`` then takes it. The noise of a row comes from its own generator on the CPU, and
    therefore does not depend on other rows or on the device.

    Parameters
    ----------
    rows : sequence of Sampling
        One per row of the batch.
    top_logprobs : int or None
        Number of most likely tokens to record at each step. None: no log-probabilities are recorded.
    """

    def __init__(self, rows: Sequence[Sampling], top_logprobs: int | None = None) -> None:
        self._rows, self._top = rows, top_logprobs
        self._generators = [torch.Generator().manual_seed(row.seed % 2**63) for row in rows]
        self._logprobs: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Choose the next tokens.

        Parameters
        ----------
        input_ids : Tensor
            Not used.
        scores : Tensor
            ``[batch, vocabulary]`` float32: logits.

        Returns
        -------
        Tensor
            Of the same shape. The largest score of each row is the choice.
        """
        if self._top is not None:
            self._logprobs = scores.log_softmax(-1)
        sampled = [i for i, row in enumerate(self._rows) if row.temperature >= GREEDY]
        if not sampled:
            return scores
        scores = scores.clone()
        for i in sampled:
            scores[i] = self._perturbed(scores[i], self._rows[i], self._generators[i])
        return scores

    @staticmethod
    def _perturbed(scores: Tensor, row: Sampling, generator: torch.Generator) -> Tensor:
        # -log of an exponential variable is a Gumbel variable.
        noise = -torch.empty(scores.shape, dtype=torch.float32).exponential_(generator=generator).log()
        return nucleus(scores / row.temperature, row.top_p) + noise.to(scores.device)

    def top(self, tokens: Sequence[int]) -> list[tuple[float, list[tuple[int, float]]]] | None:
        """Return log-probabilities of the last step.

        Parameters
        ----------
        tokens : sequence of int
            The token that each row got.

        Returns
        -------
        list or None
            For each row, the log-probability of its token, and the most likely tokens with theirs. None if they are not
            recorded.
        """
        if self._logprobs is None or self._top is None:
            return None
        chosen = self._logprobs.gather(1, torch.tensor(tokens, device=self._logprobs.device)[:, None])[:, 0].tolist()
        values, indices = self._logprobs.topk(min(self._top, self._logprobs.shape[1]), dim=-1)
        likely = [list(zip(*pair, strict=True)) for pair in zip(indices.tolist(), values.tolist(), strict=True)]
        return list(zip(chosen, likely, strict=True))


def nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Keep the most likely tokens whose probabilities reach ``top_p`` together.

    Parameters
    ----------
    scores : Tensor
        ``[vocabulary]`` float32: logits.
    top_p : float
        In (0, 1].

    Returns
    -------
    Tensor
        The scores, with ``-inf`` at all other tokens. At least one token is kept.
    """
    if top_p >= 1:
        return scores
    ordered, order = scores.sort(descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    return scores.index_fill(0, order[before >= top_p], -math.inf)
