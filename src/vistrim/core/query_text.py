"""Text tokens that rate visual tokens: their choice, and their attention without the prior of RoPE."""

import torch
from torch import Tensor

from vistrim.core.scores import AttentionRows


def text_behind_images(visual: Tensor, prompt: Tensor) -> Tensor:
    """Mark the prompt text after the last visual token of each sample. Without any visual token, that is all text.

    Parameters
    ----------
    visual : Tensor
        ``[batch, tokens]`` bool, True for visual tokens.
    prompt : Tensor
        ``[batch, tokens]`` bool, False for padding and for tokens after the prompt (drafts, answers).

    Returns
    -------
    Tensor
        ``[batch, tokens]`` bool.
    """
    place = torch.arange(visual.shape[1], device=visual.device)
    return prompt & ~visual & (place > torch.where(visual, place, -1).amax(1)[:, None])


def words_above_average(image: Tensor, words: Tensor) -> Tensor:
    r"""Find the words that are relevant to an image, by their embeddings.

    The relevance of a word is the softmax over the words of :math:`V Q^T`, averaged over the visual tokens.

    Parameters
    ----------
    image : Tensor
        ``[visual tokens, hidden]``: :math:`V`.
    words : Tensor
        ``[words, hidden]``: :math:`Q`.

    Returns
    -------
    Tensor
        ``[words]`` bool, True where the relevance exceeds its mean. If it does so nowhere (all words are equally
        relevant, or there is no image), all entries are True.

    Notes
    -----
    Source: SparseVLM, arXiv 2410.04417 and its code. In the code, no word is used if all are equally relevant.
    Computed in float32.
    """
    relevance = (image.float() @ words.float().T).softmax(1).mean(0)
    above = relevance > relevance.mean()
    return above if above.any() else torch.ones_like(above)


def received_without_prior(attention: AttentionRows, visual: Tensor, heads: int, least: float) -> Tensor:
    r"""Compute the attention received, divided by RoPE's distance prior, in the heads that attend to the image most.

    The prior is :math:`g(i - j) = \langle RoPE_i(\mathbb 1), RoPE_j(\mathbb 1) \rangle / \sqrt d`.

    Parameters
    ----------
    attention : AttentionRows
        Query rows of a decoder layer.
    visual : Tensor
        ``[batch, tokens]`` bool, True for visual tokens.
    heads : int
        Number of heads to use: those with the largest sums over the visual tokens.
    least : float
        Lower bound of the divisor, as a fraction of the prior at distance 0.

    Returns
    -------
    Tensor
        ``[batch, tokens]`` float32: mean over these heads and the query rows.

    Raises
    ------
    ValueError
        If the layer has no RoPE.

    Notes
    -----
    Source: SparseVLM's code, version 2.0. It has no lower bound, although the prior falls to zero at long distances.
    """
    if attention.rotary is None:
        raise ValueError("this layer has no RoPE, so there is no prior to divide by: use another variant")
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
