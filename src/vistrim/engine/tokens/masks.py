"""Attention mask of a layer with fewer tokens than the full sequence."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from vistrim.core.selection import gather_rows
from vistrim.engine.tokens.token_map import TokenMap


def layer_mask(
    mask: Tensor | None,
    keys: TokenMap,
    queries: TokenMap,
    first_slot: int,
    kv_offset: int,
) -> Tensor | None:
    """Restrict the model's mask of a prefill to the rows and columns that a layer still has.

    Parameters
    ----------
    mask : Tensor or None
        ``[batch or 1, 1, full queries, full keys]``, bool (True: visible) or additive. None: causal, without padding.
    keys : TokenMap
        The columns: the tokens in the cache of the layer, and those of this forward pass.
    queries : TokenMap
        The rows.
    first_slot : int
        Slot of the mask's first row.
    kv_offset : int
        Slot of the mask's first column (above 0 in sliding windows).

    Returns
    -------
    Tensor or None
        ``[batch, 1, rows, columns]`` of the same kind, or None if a plain causal mask is correct.
    """
    if mask is None:
        if not any(keys.n_invalid):
            return None
        # The order is kept, so causality of slots is causality of rows.
        rows, columns = queries.width, keys.width
        causal = torch.ones(rows, columns, dtype=torch.bool, device=keys.valid.device).tril(columns - rows)
        return _show_something(causal & keys.valid[:, None, None], queries)
    place = (keys.places - kv_offset).to(mask.device)
    row = (queries.places - first_slot).to(mask.device)
    known = (keys.valid.to(mask.device) & (place >= 0))[:, None, None]
    full, mask = mask, gather_rows(mask, row.clamp(min=0), 0, 2)
    mask = gather_rows(mask, place.clamp(min=0), 0, 3)
    if not keys.in_order:
        # Tokens with the same place see each other in row order, unless the place before also sees that place.
        rows, columns = queries.width, keys.width
        earlier = torch.ones(rows, columns, dtype=torch.bool, device=mask.device).tril(columns - rows)
        elsewhere = (queries.places[:, :, None] != keys.places[:, None]).to(mask.device)
        before = gather_rows(gather_rows(full, (row - 1).clamp(min=0), 0, 2), place.clamp(min=0), 0, 3)
        both_ways = visible(before) & (row > 0)[:, None, :, None]
        known = known & (earlier | elsewhere[:, None] | both_ways)
    if mask.dtype == torch.bool:
        return _show_something(mask & known, queries)
    return mask.masked_fill(~known, torch.finfo(mask.dtype).min)


def decode_mask(
    held: TokenMap, stored: int, past: int, window: int | None, additive: torch.dtype | None, flat: bool
) -> Tensor | None:
    """Build the mask of one generated token over a trimmed cache layer and itself.

    Parameters
    ----------
    held : TokenMap
        The mapped columns. They are followed by consecutive generated tokens.
    stored : int
        Number of all columns.
    past : int
        Slot of the generated token.
    window : int or None
        Sliding window of the layer in slots. None: full attention.
    additive : torch.dtype or None
        Dtype of an additive mask. None: a bool mask.
    flat : bool
        Whether the kernel is FlashAttention. For one row, columns outside the window can be treated as padding.

    Returns
    -------
    Tensor or None
        ``[batch, 1, 1, stored + 1]``, flat ``[batch, stored + 1]``, or None if every column is visible.
    """
    if window is None or past < window:
        window = None
        if not any(held.n_invalid):
            return None
    behind = stored + 1 - held.width
    seen = pad(held.valid, (0, behind), value=True)
    if window is not None:
        generated = torch.arange(past + 1 - behind, past + 1, device=held.slots.device)
        places = torch.cat([held.places, generated.expand(held.places.shape[0], -1)], 1)
        seen = seen & (past - places < window)
    if flat:
        return seen
    seen = seen[:, None, None]
    if additive is None:
        return seen
    return torch.zeros(seen.shape, dtype=additive, device=seen.device).masked_fill(~seen, torch.finfo(additive).min)


def visible(mask: Tensor) -> Tensor:
    """Convert a bool or additive mask to a bool mask (True: visible)."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def visible_to_rows(mask: Tensor | None, rows: Tensor, queries: int, columns: int) -> Tensor:
    """Compute the columns that some query rows of each sample may attend to.

    Parameters
    ----------
    mask : Tensor or None
        Mask of the layer: ``[batch or 1, 1, queries, columns]``, bool or additive; or ``[batch, columns]`` bool, the
        valid columns of a causal layer. None: causal.
    rows : Tensor
        ``[batch, n]`` long: the query rows.
    queries, columns : int
        Number of rows and columns of the layer.

    Returns
    -------
    Tensor
        ``[batch, n, columns]`` bool.
    """
    if mask is None or mask.dim() == 2:
        place = torch.arange(columns, device=rows.device)
        causal = place <= (rows + columns - queries)[..., None]
        return causal if mask is None else causal & mask[:, None].to(rows.device)
    return visible(gather_rows(mask[:, 0], rows.to(mask.device), 0, 1))


def visible_between(mask: Tensor | None, rows: Tensor, columns: Tensor, all_rows: int, all_columns: int) -> Tensor:
    """Compute which of some query rows may attend to which of some columns, per sample.

    Parameters
    ----------
    mask : Tensor or None
        Mask of the layer, ``[batch or 1, 1, all_rows, all_columns]``, bool or additive. None: causal.
    rows : Tensor
        ``[batch, n]`` long: the query rows.
    columns : Tensor
        ``[batch, m]`` long: the columns.
    all_rows, all_columns : int
        Number of rows and columns of the layer.

    Returns
    -------
    Tensor
        ``[batch, n, m]`` bool.
    """
    if mask is None:
        return columns[:, None] <= (rows + all_columns - all_rows)[..., None]
    return visible(gather_rows(gather_rows(mask[:, 0], rows, 0, 1), columns, 0, 2))


def _show_something(seen: Tensor, queries: TokenMap) -> Tensor:
    """Make all columns visible to invalid rows. Their output is never used, but without any column it would be NaN."""
    if not any(queries.n_invalid):
        return seen
    return seen | ~queries.valid.to(seen.device)[:, None, :, None]
