"""The attention mask of a layer that holds fewer tokens than the model believes."""

import torch
from torch import Tensor

from vistrim.core.selection import gather_rows
from vistrim.engine.tokens import TokenMap


def layer_mask(
    mask: Tensor | None,
    keys: TokenMap,
    queries: TokenMap,
    first_slot: int,
    kv_offset: int,
) -> Tensor | None:
    """Cut the model's mask down to the rows and columns that a layer still has.

    Parameters
    ----------
    mask : Tensor or None
        ``[batch or 1, 1, full queries, full keys]``, bool (True: visible) or additive float; None: causal without
        padding.
    keys : TokenMap
        The columns: what the layer's cache holds and the tokens of this forward pass.
    queries : TokenMap
        The rows.
    first_slot : int
        Slot of the mask's first row.
    kv_offset : int
        Slot of the mask's first column (above 0 in sliding windows).

    Returns
    -------
    Tensor or None
        ``[batch, 1, rows, columns]`` of the same kind, or None where a causal mask is right as it is.
    """
    if mask is None:
        if not any(keys.n_invalid):
            return None
        # Order is kept, so that "not later" holds for rows as it does for slots.
        rows, columns = queries.width, keys.width
        visible = torch.ones(rows, columns, dtype=torch.bool, device=keys.valid.device).tril(columns - rows)
        return _show_something(visible & keys.valid[:, None, None], queries)
    place = (keys.slots - kv_offset).to(mask.device)
    known = (keys.valid.to(mask.device) & (place >= 0))[:, None, None]
    if mask.shape[2] > 1:
        mask = gather_rows(mask, queries.slots - first_slot, 0, 2)
    mask = gather_rows(mask, place.clamp(min=0), 0, 3)
    if mask.dtype == torch.bool:
        return _show_something(mask & known, queries)
    return mask.masked_fill(~known, torch.finfo(mask.dtype).min)


def _show_something(visible: Tensor, queries: TokenMap) -> Tensor:
    """Let invalid rows see every column: their result is never used, but a row without any column would be NaN."""
    if not any(queries.n_invalid):
        return visible
    return visible | ~queries.valid.to(visible.device)[:, None, :, None]
