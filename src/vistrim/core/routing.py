"""Exit decisions from the hidden states of a prompt: whether its image is still needed."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu


def question_summary(hidden: Tensor, question: Tensor) -> Tensor:
    """Summarize the hidden states of a question: the mean of all tokens but the last, and the last token.

    Parameters
    ----------
    hidden : Tensor
        Hidden states ``[batch, tokens, hidden]``.
    question : Tensor
        ``[batch, tokens]`` bool, at least one True per sample. For a single token, the mean is that token.

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
    # A product instead of a masked mean avoids a float32 copy of all hidden states.
    weights = torch.stack([others / others.sum(1, keepdim=True), is_last], 1)
    return (weights.to(hidden.dtype) @ hidden).float().flatten(1)


def router_logits(summary: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Compute the logits of "stay" and "exit": two linear layers without bias, with a GELU between them.

    Parameters
    ----------
    summary : Tensor
        `question_summary`, ``[..., batch, 2 * hidden]``.
    w1 : Tensor
        Weights of the first layer, ``[..., width, 2 * hidden]``.
    w2 : Tensor
        Weights of the second layer, ``[..., 2, width]``.

    Returns
    -------
    Tensor
        ``[..., batch, 2]``.
    """
    return gelu(summary @ w1.transpose(-1, -2)) @ w2.transpose(-1, -2)


@dataclass(frozen=True)
class Agreement:
    """Agreement of predictions with and without the image. All fields are ``[...]`` float32.

    Attributes
    ----------
    alike : Tensor
        Fraction of the answer's tokens with the same prediction.
    entropy_full, entropy_without : Tensor
        Cross entropy of the correct answer with and without the image, in nats per token.
    """

    alike: Tensor
    entropy_full: Tensor
    entropy_without: Tensor


def compare_answers(full: Tensor, without: Tensor, answer: Tensor) -> Agreement:
    """Compare the predictions of correct answers with and without the image.

    Parameters
    ----------
    full, without : Tensor
        Logits with and without the image, ``[batch, tokens, vocabulary]``.
    answer : Tensor
        ``[batch, tokens]`` long: the correct next token, or -100 where there is none. At least one per sample.

    Returns
    -------
    Agreement
        ``[batch]`` each.
    """
    counted = answer != -100
    n = counted.sum(1)

    def entropy(logits: Tensor) -> Tensor:
        likely = logits.float().log_softmax(-1).gather(-1, answer.clamp(min=0)[..., None])[..., 0]
        return -(likely * counted).sum(1) / n

    alike = ((full.argmax(-1) == without.argmax(-1)) & counted).sum(1) / n
    return Agreement(alike, entropy(full), entropy(without))


def exits_by_code(found: Agreement) -> Tensor:
    """Decide whether samples may exit, by the rule of DyVTE's code.

    More than 99 % of the answer's tokens have the same prediction, and the cross entropy of the answer without the
    image is below 1.03 times that with it.

    Parameters
    ----------
    found : Agreement
        Predictions with and without the image.

    Returns
    -------
    Tensor
        ``[...]`` bool.

    Notes
    -----
    Source: github.com/DoubtedSteam/DyVTE at b4a3396, ``modeling_llama.py:958-968``.
    """
    return (found.alike > 0.99) & (found.entropy_without < 1.03 * found.entropy_full)


def exits_by_paper(found: Agreement, threshold: float) -> Tensor:
    """Decide whether samples may exit, by the rule in DyVTE's paper.

    The predictions are the same for the whole answer, and its cross entropy without the image is below ``threshold``.

    Parameters
    ----------
    found : Agreement
        Predictions with and without the image.
    threshold : float
        Cross entropy in nats per token. The authors' value is not published.

    Returns
    -------
    Tensor
        ``[...]`` bool.
    """
    return (found.alike == 1) & (found.entropy_without < threshold)
