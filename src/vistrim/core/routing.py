"""Deciding from a prompt's own hidden states whether its image is still needed."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu


def question_summary(hidden: Tensor, question: Tensor) -> Tensor:
    """Sum up a question's hidden states: the mean of all its tokens but the last one, and the last one.

    Parameters
    ----------
    hidden : Tensor
        ``[batch, tokens, hidden]``.
    question : Tensor
        ``[batch, tokens]`` bool, at least one True per sample. Of a single token, the mean is that token itself.

    Returns
    -------
    Tensor
        ``[batch, 2 * hidden]`` float32.
    """
    question = question.to(hidden.device)
    place = torch.arange(hidden.shape[1], device=hidden.device)
    is_last = place == (place * question).argmax(1)[:, None]
    others = question & ~is_last
    others = torch.where(others.any(1, keepdim=True), others, is_last)
    # A product instead of a masked mean: no copy of all hidden states in float32 for a handful of rows.
    weights = torch.stack([others / others.sum(1, keepdim=True), is_last], 1)
    return (weights.to(hidden.dtype) @ hidden).float().flatten(1)


def router_logits(summary: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Logits of "stay" and "exit" ``[..., batch, 2]``: two linear layers without bias and a GELU between them.

    Parameters
    ----------
    summary : Tensor
        ``[..., batch, 2 * hidden]``.
    w1 : Tensor
        ``[..., width, 2 * hidden]``.
    w2 : Tensor
        ``[..., 2, width]``.
    """
    return gelu(summary @ w1.transpose(-1, -2)) @ w2.transpose(-1, -2)


@dataclass(frozen=True)
class Agreement:
    """How well answers are predicted with and without the image; all ``[...]`` float32.

    Attributes
    ----------
    alike : Tensor
        Share of an answer's tokens that are predicted alike.
    entropy_full, entropy_without : Tensor
        Cross entropy of the right answer with and without the image, in nats per token.
    """

    alike: Tensor
    entropy_full: Tensor
    entropy_without: Tensor


def compare_answers(full: Tensor, without: Tensor, answer: Tensor) -> Agreement:
    """Compare predictions of right answers.

    Parameters
    ----------
    full, without : Tensor
        ``[batch, tokens, vocabulary]``: logits with and without the image.
    answer : Tensor
        ``[batch, tokens]`` long: the right next token, -100 where there is none; at least one per sample.
    """
    counted = answer != -100
    n = counted.sum(1)

    def entropy(logits: Tensor) -> Tensor:
        likely = logits.float().log_softmax(-1).gather(-1, answer.clamp(min=0)[..., None])[..., 0]
        return -(likely * counted).sum(1) / n

    alike = ((full.argmax(-1) == without.argmax(-1)) & counted).sum(1) / n
    return Agreement(alike, entropy(full), entropy(without))


def exits_by_code(found: Agreement) -> Tensor:
    """Whether samples may exit, by the rule of DyVTE's code.

    More than 99 % of the answer's tokens are predicted alike, and the answer's cross entropy without the image is below
    1.03 times that with it.

    Notes
    -----
    Source: github.com/DoubtedSteam/DyVTE at b4a3396, ``modeling_llama.py:958-968``.
    """
    return (found.alike > 0.99) & (found.entropy_without < 1.03 * found.entropy_full)


def exits_by_paper(found: Agreement, threshold: float) -> Tensor:
    """Whether samples may exit, by the rule that DyVTE's paper describes.

    The answer is predicted alike, and its cross entropy without the image is below ``threshold``, in nats per token;
    the authors' value is not known.
    """
    return (found.alike == 1) & (found.entropy_without < threshold)
