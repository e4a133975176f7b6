"""The functions of the flash-attn package in plain PyTorch on the CPU, and their installation into models.

transformers' own code around them (masks, unpadding, packed sequences) runs as it is. Semantics are those that
flash-attn documents: causality and windows count from the bottom right corner, and rows that see nothing give zeros.
"""

from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import modeling_flash_attention_utils as utils

from tests.families.zoo import FAMILIES

CALLS: list[int] = []
"""Columns that each sample of each call was given, since it was emptied last."""


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """``[batch, tokens, heads, head_dim]``."""
    rows, columns, group = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    CALLS.append(columns)
    k, v = (x.repeat_interleave(group, 2) for x in (k, v))
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k).float() * (softmax_scale or q.shape[-1] ** -0.5)
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    # How far a column lies behind the row's own.
    place = torch.arange(columns, device=q.device)
    behind = place[columns - rows :, None] - place
    left, right = window_size
    hidden = (behind < 0) & causal
    if left >= 0:
        hidden |= behind > left
    if right >= 0:
        hidden |= behind < -right
    weights = logits.masked_fill(hidden, -torch.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("bhqk,bkhd->bqhd", weights.to(v.dtype), v)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """``[tokens of all samples, heads, head_dim]``."""
    output = torch.zeros_like(q)
    bounds = list(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True))
    assert bounds[-1] == (len(q), len(k))
    for (q0, k0), (q1, k1) in pairwise(bounds):
        assert q1 - q0 <= int(max_seqlen_q)
        assert k1 - k0 <= int(max_seqlen_k)
        sample = (q[None, q0:q1], k[None, k0:k1], v[None, k0:k1])
        options = {"softmax_scale": softmax_scale, "causal": causal, "window_size": window_size, "softcap": softcap}
        output[q0:q1] = flash_attn_func(*sample, **options)[0]
    return output


@contextmanager
def installed(monkeypatch: Any):
    """Let transformers find these kernels under any name that it looks up."""
    with monkeypatch.context() as patch:
        found = (flash_attn_func, flash_attn_varlen_func, None, utils._pad_input, utils._unpad_input)
        patch.setattr(utils, "_lazy_imports", lambda *args, **kwargs: found)
        for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn"):
            patch.setattr(utils, name, None)
        for name in ("_pad_fn", "_unpad_fn", "_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn"):
            patch.setattr(utils, name, None)
        yield


def use_flash(model: Any, kernel: str = "flash_attention_2") -> Any:
    """Past the check for a GPU that ``set_attn_implementation`` makes."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = kernel
    return model


def build(name: str, kernel: str = "flash_attention_2") -> Any:
    """A tiny model of a family."""
    return use_flash(FAMILIES[name].build("sdpa"), kernel)
