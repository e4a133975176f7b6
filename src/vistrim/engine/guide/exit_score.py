"""Confidence of a guide model in its answers: their probability, and their probability with few visual tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vistrim.core.schedules import share_of
from vistrim.core.selection import Selection, keep_top
from vistrim.engine.engine import Engine
from vistrim.engine.releases import CACHE
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_inputs import InputTokens


@dataclass(frozen=True)
class KeepBest(Method):
    """Keeps a share of the visual tokens before the decoder, at least one, by given scores.

    Attributes
    ----------
    share : float
        Share of each sample's visual tokens to keep.
    scores : Tensor
        ``[batch, prompt tokens]`` float32.
    thread : int
        The thread in which the method acts. Others may use the model at the same time.
    """

    name = "best-tokens"
    summary = "Keeps the visual tokens with the highest given scores"
    stages = ("input",)
    kv_cache = "small in every layer"
    source = "engine"
    ranks_by = "nothing"

    share: float
    scores: Tensor
    thread: int = field(default_factory=threading.get_ident)

    def __str__(self) -> str:
        return self.name

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Keep the best tokens."""
        if threading.get_ident() != self.thread:
            return None
        return keep_top(self.scores, tokens.visual, [self.kept(sum(images)) for images in tokens.images])

    def kept(self, n: int) -> int:
        """Return the number of tokens of ``n`` to keep."""
        return min(n, max(1, share_of(self.share, n)))


def read_again(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    images: dict[str, Any] | None,
    answers: Tensor,
    lengths: Tensor,
    best: KeepBest,
) -> tuple[Tensor, ...]:
    """Compute a model's logits for its answers with few visual tokens.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model.
    ids, mask : Tensor
        ``[batch, prompt tokens]``: the prompts and their padding mask.
    images : dict or None
        Encoded images, in the form that transformers passes to a model.
    answers : Tensor
        ``[batch, n]`` long.
    lengths : Tensor
        ``[batch]`` long: tokens of each answer.
    best : KeepBest
        Selection of visual tokens.

    Returns
    -------
    tuple of Tensor
        Logits ``[batch, vocabulary]`` for each token of the answers.
    """
    engine = Engine(model, best)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    try:
        engine.attach()
        prompt = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=place,
            mm_encoder_outputs=images,
            logits_to_keep=1,
            use_cache=True,
        )
        logits = prompt.logits.unbind(1)
        if answers.shape[1] > 1:
            # Without images, because the answer may contain the placeholder. The last token predicts nothing.
            number = torch.arange(answers.shape[1] - 1, device=answers.device)
            answer = model(
                input_ids=answers[:, :-1],
                attention_mask=torch.cat([mask, (number < lengths[:, None] - 1).to(mask.dtype)], 1),
                position_ids=place[:, -1:] + 1 + number,
                **{CACHE: prompt[CACHE]},
            )
            logits += answer.logits.unbind(1)
    finally:
        engine.detach()
    return logits


def log_probability(logits: Iterable[Tensor], answers: Tensor, lengths: Tensor) -> Tensor:
    """Compute the log probability of each answer, ``[batch]`` float32.

    Parameters
    ----------
    logits : iterable of Tensor
        ``[batch, vocabulary]`` for each token of the answers.
    answers : Tensor
        ``[batch, n]`` long.
    lengths : Tensor
        ``[batch]`` long: tokens of each answer.
    """
    steps = zip(logits, answers.T, strict=True)
    each = torch.cat([step.float().log_softmax(-1).gather(1, token[:, None]) for step, token in steps], 1)
    number = torch.arange(answers.shape[1], device=answers.device)
    return torch.where(number < lengths[:, None], each, 0.0).sum(1)


def exit_score(confidence: Tensor, consistency: Tensor, lengths: Tensor) -> Tensor:
    r"""Compute the exit score :math:`S` of each answer, ``[batch]`` float32 in [0, 1].

    .. math:: S = \tfrac12 \left( \Big(\prod_i p_i\Big)^{1/N} + \prod_i p'_i \right)

    Parameters
    ----------
    confidence, consistency : Tensor
        ``[batch]`` float32: log of the probability :math:`\prod_i p_i` of the answer when it was generated, and of its
        probability :math:`\prod_i p'_i` with few visual tokens.
    lengths : Tensor
        ``[batch]`` long: number :math:`N` of its tokens.
    """
    return ((confidence / lengths).exp() + consistency.exp()) / 2
