"""Queries and keys of a decoder layer that has not run yet."""

from __future__ import annotations

import sys
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.models.gemma.modeling_gemma import GemmaAttention
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.mistral.modeling_mistral import MistralAttention
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from vistrim.core.scores import Softmax
from vistrim.core.selection import gather_rows
from vistrim.engine.hooks import Call

PLAIN = (LlamaAttention, MistralAttention, Qwen2Attention, GemmaAttention)
"""Attention whose queries and keys are projections with RoPE and nothing else: only those asked for are computed."""


class _Reached(Exception):  # noqa: N818 (no error: it leaves a layer at the point where queries and keys are made)
    def __init__(self, query: Tensor, key: Tensor, softmax: Softmax) -> None:
        self.found = query, key, softmax


def leave_layer(query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
    """Reader in front of the kernel: ends the layer that `queries_and_keys` runs."""
    raise _Reached(query, key, softmax)


@torch.no_grad()
def queries_and_keys(layer: Any, hidden: Tensor, arguments: Call, rows: Tensor) -> tuple[Tensor, Tensor, Softmax]:
    """Compute what a layer will compute: all keys, and the queries of a few rows.

    The layer's own forward pass is run up to its attention kernel, which has to be intercepted with `leave_layer`.
    Where it is known what the pass does until then, only the queries of these rows are computed.

    Parameters
    ----------
    layer : nn.Module
        A decoder layer.
    hidden : Tensor
        ``[batch, tokens, hidden]``: the layer's input.
    arguments : dict
        The layer's other arguments.
    rows : Tensor
        ``[batch, rows]`` long.

    Returns
    -------
    query : Tensor
        ``[batch, heads, rows, head_dim]`` after RoPE.
    key : Tensor
        ``[batch, kv_heads, tokens, head_dim]`` after RoPE.
    softmax : Softmax
        How the layer makes weights of them.
    """
    attention = layer.self_attn
    # Elsewhere (on another GPU, or offloaded), whatever brings it here does so only where the whole layer is run.
    if type(attention) in PLAIN and _is_on(hidden.device, attention):
        return *_plain(layer, hidden, arguments["position_embeddings"], rows), Softmax(attention.scaling)
    try:
        # Its `forward` rather than itself: the hooks of this very forward pass sit on the call.
        layer.forward(hidden, **(_without_cache(arguments) | {"use_cache": False}))
    except _Reached as reached:
        query, key, softmax = reached.found
        return gather_rows(query, rows, 0, 2), key, softmax
    raise AssertionError(f"{type(layer).__name__} has run without calling its attention kernel")


def _without_cache(arguments: Call) -> Call:
    return {name: None if isinstance(value, Cache) else value for name, value in arguments.items()}


def _is_on(device: torch.device, module: nn.Module) -> bool:
    return all(tensor.device == device for tensor in chain(module.parameters(), module.buffers()))


def _plain(layer: Any, hidden: Tensor, tables: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    attention: Any = layer.self_attn
    tables = (tables[0].to(hidden.device), tables[1].to(hidden.device))
    normed = layer.input_layernorm(hidden)

    def heads(projection: nn.Module, x: Tensor) -> Tensor:
        return projection(x).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    query = heads(attention.q_proj, gather_rows(normed, rows, 0, 1))
    key = heads(attention.k_proj, normed)
    # Each modeling file has its own way to apply RoPE; it rotates a pair.
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    asked = [gather_rows(table, rows, 0, 1) for table in tables]
    return rotate(query, query[:, :1], *asked)[0], rotate(key[:, :1], key, *tables)[1]
