"""The stopping criterion of a batch: each row ends by itself."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from vistrim.serving.rows import Row
from vistrim.serving.sampling import RowSampler


class RowStops(StoppingCriteria):
    """Passes each new token to its row, and ends the rows that are complete.

    ``generate`` calls it once per step, before it hands the tokens to the streamer. It fills up rows that have ended
    with padding, and returns after the step in which the last row ends.

    Parameters
    ----------
    rows : sequence of Row
        One per row of the batch.
    sampler : RowSampler
        Has the log-probabilities of the step.
    """

    def __init__(self, rows: Sequence[Row], sampler: RowSampler) -> None:
        self._rows, self._sampler = rows, sampler

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Tell which rows are complete.

        Parameters
        ----------
        input_ids : Tensor
            ``[batch, tokens]`` int64, with the new token at the end.
        scores : object
            Not used.
        **kwargs
            Not used.

        Returns
        -------
        Tensor
            ``[batch]`` bool.
        """
        tokens = input_ids[:, -1].tolist()
        logprobs = self._sampler.top(tokens)
        for i, (row, token) in enumerate(zip(self._rows, tokens, strict=True)):
            row.take(token, None if logprobs is None else logprobs[i])
        return torch.tensor([row.reason is not None for row in self._rows], device=input_ids.device)
