"""Text that rates an image: which words do, and what they say once position and idle heads are taken out."""

import torch
from torch import Tensor

from vistrim.core.scores import AttentionRows


def text_behind_images(visual: Tensor, prompt: Tensor) -> Tensor:
    """Text of the prompt behind each sample's last visual token, ``[batch, tokens]`` bool.

    Parameters
    ----------
    visual : Tensor
        ``[batch, tokens]`` bool.
    prompt : Tensor
        ``[batch, tokens]`` bool: False for padding and for what is behind the prompt (drafts, answers).
    """
    place = torch.arange(visual.shape[1], device=visual.device)
    return prompt & ~visual & (place > (place * visual).amax(1)[:, None])


def words_above_average(image: Tensor, words: Tensor) -> Tensor:
    r"""Find the words that an image is about, by their embeddings.

    A word's relevance is the mean over visual tokens of the softmax, over the words, of :math:`V Q^T`.

    Parameters
    ----------
    image : Tensor
        ``[visual tokens, hidden]``: :math:`V`.
    words : Tensor
        ``[words, hidden]``: :math:`Q`.

    Returns
    -------
    Tensor
        ``[words]`` bool: True where the relevance exceeds its mean; everywhere, where that is so nowhere (all words
        are equally relevant, or there is no image).

    Notes
    -----
    Source: SparseVLM, arXiv 2410.04417 and its code, in which no word rates if all are equally relevant. In float32.
    """
    relevance = (image.float() @ words.float().T).softmax(1).mean(0)
    above = relevance > relevance.mean()
    return above if above.any() else torch.ones_like(above)


def received_without_prior(attention: AttentionRows, visual: Tensor, heads: int, least: float) -> Tensor:
    r"""Attention received, divided by RoPE's prior for the distance, from the heads that look at the image most.

    The prior is :math:`g(i - j) = \langle RoPE_i(\mathbb 1), RoPE_j(\mathbb 1) \rangle / \sqrt d`.

    Parameters
    ----------
    attention : AttentionRows
        Of a decoder layer.
    visual : Tensor
        ``[batch, tokens]`` bool.
    heads : int
        Number of heads that take part: those with the largest sums over the visual tokens.
    least : float
        Share of the prior at distance 0 below which it is not divided by.

    Returns
    -------
    Tensor
        ``[batch, tokens]`` float32: mean over these heads and the rows.

    Notes
    -----
    Source: SparseVLM's code, version 2.0, which divides by the prior as it is; that falls to zero at long distances.
    """
    if attention.rotary is None:
        raise ValueError("there is no RoPE in this layer by whose prior to divide: use another variant")
    cos, sin = (table.float().expand(visual.shape[0], -1, -1) for table in attention.rotary)
    samples = torch.arange(visual.shape[0], device=cos.device)[:, None]
    per_head = torch.zeros((), device=cos.device)
    for weights, places in attention.blocks():
        cos_rows, sin_rows = cos[samples, places], sin[samples, places]
        prior = cos_rows @ cos.transpose(1, 2) + sin_rows @ sin.transpose(1, 2)
        strongest = (cos_rows.square() + sin_rows.square()).sum(-1, keepdim=True)
        prior = torch.maximum(prior, least * strongest) / cos.shape[-1] ** 0.5
        per_head = per_head + (weights / prior[:, None]).sum(2)
    on_image = (per_head * visual.to(per_head.device)[:, None]).sum(2)
    priority = on_image.argsort(dim=1, descending=True, stable=True)[:, :heads]
    chosen = per_head.gather(1, priority[..., None].expand(-1, -1, per_head.shape[2]))
    return chosen.mean(1) / attention.rows_per_sample().clamp(min=1)[:, None]
