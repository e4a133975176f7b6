"""Attention received in the heads that attend to the image most."""

import math

import torch
from torch import Tensor

from vistrim.core.scores import AttentionRows


def received_in_strongest_heads(attention: AttentionRows, visual: Tensor, share: float) -> Tensor:
    """Compute the mean attention that each token receives in some of the heads.

    For each sample, these are the heads with the largest sums over its visual tokens. Ties go to the earlier head.

    Parameters
    ----------
    attention : AttentionRows
        Query rows of a decoder layer.
    visual : Tensor
        ``[batch, tokens]`` bool, True for visual tokens.
    share : float
        Share of the heads, in (0, 1]; at least one head.

    Returns
    -------
    Tensor
        ``[batch, tokens]`` float32: mean over these heads and the query rows.
    """
    per_head = torch.stack([weights.sum(2) for weights, _ in attention.blocks()]).sum(0)
    heads = max(1, math.floor(share * per_head.shape[1] + 0.5))
    on_image = (per_head * visual.to(per_head.device)[:, None]).sum(2)
    strongest = on_image.argsort(dim=1, descending=True, stable=True)[:, :heads]
    chosen = per_head.gather(1, strongest[..., None].expand(-1, -1, per_head.shape[2]))
    return chosen.mean(1) / attention.rows_per_sample().clamp(min=1)[:, None]
