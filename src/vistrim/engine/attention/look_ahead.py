"""Queries and keys of a decoder layer before it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
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
from vistrim.engine.hooks import Call, Hooks

PLAIN = (LlamaAttention, MistralAttention, Qwen2Attention, GemmaAttention)
"""Attention whose queries and keys are just projections with RoPE, so that only the needed rows are computed."""


@dataclass
class ProjectedKeys:
    """Keys of one layer without position, from the look ahead until the layer runs.

    Attributes
    ----------
    layer : int
        The layer.
    recorded : Tensor or None
        ``[batch, tokens, kv_heads * head_dim]``: output of its key projection. None before the look ahead.
    """

    layer: int
    recorded: Tensor | None = None

    def keep(self, index: Tensor) -> None:
        """Keep the rows ``index`` ``[batch, rows]``."""
        if self.recorded is not None:
            self.recorded = gather_rows(self.recorded, index, 0, 1)


def reuse_keys(number: int, layer: Any, hooks: Hooks, find: Callable[[], ProjectedKeys | None]) -> None:
    """Let a layer take the keys that the look ahead has projected, instead of projecting them again.

    Parameters
    ----------
    number : int
        Number of the layer.
    layer : nn.Module
        The layer. Nothing is done unless its ``self_attn.k_proj`` is a plain linear layer without other hooks.
    hooks : Hooks
        Keeps the hooks of the projection.
    find : callable
        Called at every projection, in its thread. Returns the keys of the current pass. None: there are none to reuse.
    """
    projection = getattr(getattr(layer, "self_attn", None), "k_proj", None)
    if type(projection) is not nn.Linear:
        return

    def project_nothing(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        keys = find()
        if keys is None or keys.layer != number or keys.recorded is None:
            return None
        return (args[0][:, :0],)

    def take_or_record(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        keys = find()
        if keys is None or keys.layer != number:
            return None
        if keys.recorded is None:
            # Other hooks have to see all rows.
            if len(module._forward_pre_hooks) == len(module._forward_hooks) == 1:
                # A copy, because kernels may rotate the keys in place.
                keys.recorded = output.clone()
            return None
        recorded, keys.recorded = keys.recorded, None
        return recorded

    hooks.keep(projection.register_forward_pre_hook(project_nothing))
    hooks.keep(projection.register_forward_hook(take_or_record))


class _Reached(Exception):  # noqa: N818 (no error: it leaves a layer at the point where queries and keys are made)
    def __init__(self, query: Tensor, key: Tensor, softmax: Softmax) -> None:
        self.found = query, key, softmax


def leave_layer(query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
    """Reader before the kernel that leaves the layer run by `queries_and_keys`."""
    raise _Reached(query, key, softmax)


@torch.no_grad()
def queries_and_keys(layer: Any, hidden: Tensor, arguments: Call, rows: Tensor) -> tuple[Tensor, Tensor, Softmax]:
    """Compute all keys of a layer, and the queries of a few rows, before the layer runs.

    The forward pass of the layer is run up to its attention kernel, which must be intercepted with `leave_layer`. For
    the known attention classes, only the queries of these rows are computed.

    Parameters
    ----------
    layer : nn.Module
        A decoder layer.
    hidden : Tensor
        Input of the layer, ``[batch, tokens, hidden]``.
    arguments : dict
        The other arguments of the layer.
    rows : Tensor
        ``[batch, rows]`` long: the query rows.

    Returns
    -------
    query : Tensor
        ``[batch, heads, rows, head_dim]`` after RoPE.
    key : Tensor
        ``[batch, kv_heads, tokens, head_dim]`` after RoPE.
    softmax : Softmax
        Softmax parameters of the layer.
    """
    attention = layer.self_attn
    # If the layer is on another GPU or offloaded, its hooks move tensors only when the whole layer runs.
    if type(attention) in PLAIN and _is_on(hidden.device, attention):
        return *_plain(layer, hidden, arguments["position_embeddings"], rows), Softmax(attention.scaling)
    try:
        # Call `forward` directly, because the hooks of this forward pass are on the module call.
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
    # Each modeling file has its own function to apply RoPE, to queries and keys together, maybe in place.
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    asked = [gather_rows(table, rows, 0, 1) for table in tables]
    return rotate(query, query[:, :1].clone(), *asked)[0], rotate(key[:, :1].clone(), key, *tables)[1]
