"""Attention of some rows, in some heads, to some columns: scaled dot products without an attention map."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vistrim.core.selection import gather_rows

ELEMENTS_AT_ONCE = 1 << 24
"""Elements of gathered keys and values that exist at the same time (64 MiB in float32)."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """Attention of all rows to all columns.

    Parameters
    ----------
    query : Tensor
        ``[batch, heads, rows, head_dim]``.
    key, value : Tensor
        ``[batch, kv_heads, columns, head_dim]``; ``heads`` is a multiple of ``kv_heads``.
    seen : Tensor or None
        ``[batch or 1, 1, rows, columns]``, bool (True: visible) or additive; None: everything is visible.
    scaling : float
        Factor of the logits.
    dropout : float
        Share of the weights that is dropped.
    causal : bool
        Without ``seen``: whether later columns are hidden.

    Returns
    -------
    Tensor
        ``[batch, heads, rows, head_dim]``.
    """
    batch, heads, rows, size = query.shape
    per_key = heads // key.shape[1]
    if per_key > 1 and rows == 1:
        # The heads of one key head become its rows, so that no key is repeated.
        packed = query.reshape(batch, key.shape[1], per_key, size)
        return scaled_dot_product_attention(packed, key, value, seen, dropout, scale=scaling).reshape(query.shape)
    return scaled_dot_product_attention(query, key, value, seen, dropout, causal, scale=scaling, enable_gqa=per_key > 1)


def attend_by_tiles(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
    seen: Tensor,
    scaling: float,
    dropout: float = 0.0,
) -> Iterator[tuple[slice, Tensor]]:
    """Attention of tiles of rows, each to columns of its own; a few tiles at a time, so that memory is bounded.

    Parameters
    ----------
    query, key, value, scaling, dropout
        As in `attend`.
    rows : Tensor
        ``[batch, tiles, n]`` long.
    columns : Tensor
        ``[batch, tiles, m]`` long.
    seen : Tensor
        ``[batch, tiles, n, m]`` bool; every row has to see something.

    Yields
    ------
    tiles : slice
        The tiles.
    output : Tensor
        ``[batch, heads, tiles * n, head_dim]``.
    """
    batch, tiles = rows.shape[:2]
    heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[3]
    at_once = max(1, ELEMENTS_AT_ONCE // (2 * batch * kv_heads * columns.shape[2] * size))

    def tiled(x: Tensor, index: Tensor) -> Tensor:
        """``[batch * tiles, heads, rows of a tile, head_dim]``."""
        picked = gather_rows(x, index.flatten(1), 0, 2).unflatten(2, index.shape[1:])
        return picked.transpose(1, 2).flatten(0, 1)

    for start in range(0, tiles, at_once):
        some = slice(start, min(start + at_once, tiles))
        visible = seen[:, some].flatten(0, 1)[:, None]
        chosen = (tiled(query, rows[:, some]), tiled(key, columns[:, some]), tiled(value, columns[:, some]))
        output = attend(*chosen, visible, scaling, dropout)
        output = output.unflatten(0, (batch, -1)).transpose(1, 2)
        yield some, output.reshape(batch, heads, -1, size)
