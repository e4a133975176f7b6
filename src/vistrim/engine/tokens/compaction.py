"""Removal of tokens from the hidden states and from all per-token tensors. No other module does this."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistrim.core.applying import merged_hidden
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
