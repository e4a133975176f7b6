"""Removal of tokens from the hidden states and from all per-token tensors. No other module does this."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistrim.core.selection import gather_rows


def compact_hidden(hidden: Tensor, index: Tensor, merge_into: Tensor | None) -> Tensor:
    """Keep the rows ``index`` of the hidden states, after merging other tokens into them.

    Parameters
    ----------
    hidden : Tensor
        ``[batch, tokens, hidden]``.
    index : Tensor
        ``[batch, rows]`` long.
    merge_into : Tensor or None
        ``[batch, tokens]`` long: row that absorbs each token, or -1.

    Returns
    -------
    Tensor
        ``[batch, rows, hidden]``.
    """
    if merge_into is not None:
        hidden = merged_hidden(hidden, merge_into)
    return gather_rows(hidden, index, 0, 1)


def replace_hidden(hidden: Tensor, keep: Tensor, replacement: Tensor) -> Tensor:
    """Replace the hidden states of the tokens with True in ``keep``, ``[batch, tokens]``.

    ``hidden`` and ``replacement`` are ``[batch, tokens, hidden]``.
    """
    return torch.where(keep.to(hidden.device)[..., None], replacement.to(hidden), hidden)


PER_TOKEN = {"position_ids": (-2, -1), "moe_mm_token_type_ids": (0, 1)}
"""Arguments of layers with one entry per token: their batch and token dimensions."""


def compact_arguments(arguments: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Restrict the RoPE tables and all other per-token arguments of a layer to ``rows`` ``[batch, rows]``."""
    changed: dict[str, Any] = {
        name: gather_rows(arguments[name], rows, *dims)
        for name, dims in PER_TOKEN.items()
        if arguments.get(name) is not None
    }
    tables = arguments["position_embeddings"]
    if isinstance(tables, Tensor):
        changed["position_embeddings"] = gather_rows(tables, rows, -3, -2)
    elif tables is not None:
        changed["position_embeddings"] = tuple(gather_rows(table, rows, -3, -2) for table in tables)
    return changed


def restore_length(hidden: Tensor, rows: Tensor, valid: Tensor, length: int) -> Tensor:
    """Restore the length of the untrimmed sequence. Removed tokens become zeros.

    Parameters
    ----------
    hidden : Tensor
        ``[batch, rows, hidden]``.
    rows : Tensor
        ``[batch, rows]`` long: place of each row in the full sequence.
    valid : Tensor
        ``[batch, rows]`` bool, False for rows to ignore.
    length : int
        Number of tokens of the full sequence.
    """
    rows, valid = rows.to(hidden.device), valid.to(hidden.device)
    batch, _, width = hidden.shape
    place = torch.where(valid, rows, length)[..., None].expand_as(hidden)
    return hidden.new_zeros(batch, length + 1, width).scatter(1, place, hidden)[:, :length]


def merged_hidden(hidden: Tensor, merge_into: Tensor) -> Tensor:
    """Replace rows that absorb others by the mean over all of them, including the row itself.

    Parameters
    ----------
    hidden : Tensor
        ``[batch, tokens, hidden]``.
    merge_into : Tensor
        ``[batch, tokens]`` long: row that absorbs each token, or -1.
    """
    batch, tokens, width = hidden.shape
    merge_into = merge_into.to(hidden.device)
    own = torch.arange(tokens, device=hidden.device).expand(batch, -1)
    target = torch.where(merge_into >= 0, merge_into, own)
    total = torch.zeros(batch, tokens, width, dtype=torch.float32, device=hidden.device)
    total = total.scatter_add(1, target[..., None].expand_as(hidden), hidden.float())
    members = torch.zeros(batch, tokens, device=hidden.device).scatter_add(1, target, torch.ones_like(own).float())
    mean = (total / members.clamp(min=1)[..., None]).to(hidden.dtype)
    # Rows that absorb nothing stay bit-identical.
    return torch.where((members > 1)[..., None], mean, hidden)
