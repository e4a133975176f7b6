"""A second reference, against which the first is checked: the stock model at full length, under masks of our own.

Nothing is removed: a prompt and its answer are read at once, all tokens run through all layers of transformers' own
eager attention, and in each layer a mask says which token sees which. No code of the package is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests import tiny

Seen = Callable[[int], Tensor]
"""For a layer: which token sees which, bool ``[tokens, tokens]``, or ``[heads, tokens, tokens]``."""


@dataclass
class Reading:
    """A prompt and its answer, as one sequence.

    Attributes
    ----------
    embeddings : Tensor
        ``[tokens, D]``; the last token of the answer is not read any more.
    visual : list of int
        Where the image tokens stand that may be removed.
    prompt : int
        Tokens of the prompt.
    """

    embeddings: Tensor
    visual: list[int]
    prompt: int

    @classmethod
    @torch.no_grad()
    def of(cls, model: Any, sample: tiny.Sample, answer: list[int]) -> "Reading":
        ids = torch.tensor(sample.ids + answer[:-1])
        embeddings = model.get_input_embeddings()(ids)
        where = (ids == tiny.IMAGE).nonzero()[:, 0].tolist()
        if where:
            features = model.get_image_features(sample.pixels, return_dict=True).pooler_output
            embeddings[where] = torch.cat(list(features))
        return cls(embeddings, [i for i in where if i < len(sample.ids) - 1], len(sample.ids))

    @property
    def causal(self) -> Tensor:
        return torch.ones(len(self.embeddings), len(self.embeddings)).tril().bool()

    def without(self, removed: list[int]) -> Tensor:
        """Causal, with tokens that only they themselves still see."""
        seen = self.causal
        seen[:, removed] = False
        return seen | torch.eye(len(seen)).bool()


@torch.no_grad()
def logits(model: Any, reading: Reading, seen: Seen) -> Tensor:
    """Logits of every step of the answer, ``[steps, vocabulary]``."""
    decoder, handles = model.get_decoder(), []
    for layer, module in enumerate(decoder.layers):
        visible = seen(layer)
        visible = visible[None] if visible.dim() == 3 else visible[None, None]
        mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)

        def put(module: Any, args: Any, kwargs: Any, mask: Tensor = mask) -> Any:
            return args, kwargs | {"attention_mask": mask}

        handles.append(module.register_forward_pre_hook(put, with_kwargs=True))
    try:
        hidden = decoder(inputs_embeds=reading.embeddings[None], use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return model.lm_head(hidden[0, reading.prompt - 1 :])
