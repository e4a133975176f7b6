"""Importance of tokens, computed from a few query rows: no attention map is ever materialised."""

import torch
from torch import Tensor


def attention_received(
    query: Tensor,
    key: Tensor,
    visible: Tensor | None,
    scaling: float,
) -> Tensor:
    """Attention that each key receives from the given query rows, averaged over heads and rows.

    Parameters
    ----------
    query : Tensor
        ``[batch, heads, rows, head_dim]``, after RoPE.
    key : Tensor
        ``[batch, kv_heads, keys, head_dim]``, after RoPE; ``heads`` is a multiple of ``kv_heads``
        (grouped-query attention needs no copy of the keys).
    visible : Tensor or None
        ``[batch, rows, keys]`` bool, True where the row may attend; None if every row sees every key.
    scaling : float
        Factor of the logits, usually ``head_dim ** -0.5``.

    Returns
    -------
    Tensor
        ``[batch, keys]`` float32. The softmax is taken in float32 over the whole row, so for one query row
        the result equals the mean over heads of the eager attention weights.
    """
    batch, heads, rows, head_dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * rows, head_dim)
    # Scaled before the product, so that half precision does not overflow.
    logits = (grouped * scaling @ key.transpose(2, 3)).view(batch, heads, rows, keys).float()
    if visible is not None:
        logits = logits.masked_fill(~visible[:, None], -torch.inf)
    return logits.softmax(-1).mean((1, 2))
