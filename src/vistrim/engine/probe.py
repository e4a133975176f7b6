"""Queries and keys of a decoder layer that has not run yet."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.core.selection import gather_rows

PARTS = ("q_proj", "k_proj", "head_dim", "scaling")


def can_look_ahead(layer: nn.Module) -> bool:
    """Whether `queries_and_keys` knows how the layer makes its queries and keys."""
    attention: Any = getattr(layer, "self_attn", None)
    return hasattr(layer, "input_layernorm") and all(hasattr(attention, part) for part in PARTS)


@torch.no_grad()
def queries_and_keys(
    layer: Any, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute what a layer will compute: all keys, and the queries of a few rows.

    Parameters
    ----------
    layer : nn.Module
        A decoder layer with ``input_layernorm`` and ``self_attn``.
    hidden : Tensor
        ``[batch, tokens, hidden]``: the layer's input.
    position_embeddings : tuple of Tensor
        Cosines and sines ``[batch or 1, tokens, head_dim]``.
    rows : Tensor
        ``[batch, rows]`` long.

    Returns
    -------
    query : Tensor
        ``[batch, heads, rows, head_dim]`` after RoPE.
    key : Tensor
        ``[batch, kv_heads, tokens, head_dim]`` after RoPE.
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    query = heads(attention.q_proj(gather_rows(normed, rows, 0, 1)))
    key = heads(attention.k_proj(normed))
    # Each modeling file has its own way to apply RoPE; it rotates a pair.
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    tables = [gather_rows(table, rows, 0, 1) for table in position_embeddings]
    return rotate(query, query[:, :1], *tables)[0], rotate(key[:, :1], key, *position_embeddings)[1]
