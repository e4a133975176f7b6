"""Ends an answer at a stop string."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria


class StopAt(StoppingCriteria):
    """End the answer of each sample after the first of several texts.

    The ``stop_strings`` of transformers do the same for tokenizers whose tokens are pieces of text, but fail for
    tokenizers of whole words, such as those of the reference models.

    Parameters
    ----------
    stops : sequence of str
        The texts, at least one.
    tokenizer : PreTrainedTokenizerBase
        Tokenizer of the answers.
    prompt : int
        Tokens before the answers, including padding.
    """

    def __init__(self, stops: Sequence[str], tokenizer: Any, prompt: int) -> None:
        self.stops, self.tokenizer, self.prompt = tuple(stops), tokenizer, prompt
        # A token has at least one byte. The first of a decoded text may lose its space.
        self.longest = max(len(stop.encode()) for stop in stops) + 1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Find the samples whose last tokens contain a stop string.

        Parameters
        ----------
        input_ids : Tensor
            ``[samples, tokens]`` long: prompts and answers.
        scores : Tensor
            Not used.
        **kwargs
            Not used.

        Returns
        -------
        Tensor
            ``[samples]`` bool.
        """
        last = input_ids[:, max(self.prompt, input_ids.shape[1] - self.longest) :]
        texts = self.tokenizer.batch_decode(last, skip_special_tokens=True)
        found = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(found, device=input_ids.device)
