"""Scaled dot-product attention for a subset of rows, heads and columns, without an attention map."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vistrim.core.selection import gather_rows

ELEMENTS_AT_ONCE = 1 << 24
"""Upper bound on gathered key and value elements held in memory at a time (64 MiB in float32)."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """Compute the attention of all rows to all columns.

    Parameters
    ----------
    query : Tensor
        ``[batch, heads, rows, head_dim]``.
    key, value : Tensor
        ``[batch, kv_heads, columns, head_dim]``; ``heads`` is a multiple of ``kv_heads``.
    seen : Tensor or None
        Attention mask ``[batch or 1, 1, rows, columns]``, either bool (True: visible) or additive. None: no mask.
    scaling : float
        Factor applied to the logits.
    dropout : float
        Dropout probability of the attention weights.
    causal : bool
        Whether later columns are hidden. Used only if ``seen`` is None.

    Returns
    -------
    Tensor
        ``[batch, heads, rows, head_dim]``.
    """
    batch, heads, rows, size = query.shape
    per_key = heads // key.shape[1]
    if per_key > 1 and rows == 1:
        # Query heads that share a key head become rows of that head, so that no key is repeated.
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
    """Compute the attention of tiles of rows, each to its own columns, a few tiles at a time to bound memory.

    Parameters
    ----------
    query, key, value, scaling, dropout
        As in `attend`.
    rows : Tensor
        ``[batch, tiles, n]`` long: the query rows of each tile.
    columns : Tensor
        ``[batch, tiles, m]`` long: the key columns of each tile.
    seen : Tensor
        ``[batch, tiles, n, m]`` bool, True where a row may attend. Every row must see at least one column.

    Yields
    ------
    tiles : slice
        The tiles of this chunk.
    output : Tensor
        ``[batch, heads, tiles in the chunk * n, head_dim]``.
    """
    batch, tiles = rows.shape[:2]
    heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[3]
    at_once = max(1, ELEMENTS_AT_ONCE // (2 * batch * kv_heads * columns.shape[2] * size))

    def tiled(x: Tensor, index: Tensor) -> Tensor:
        """Gather the rows of each tile.

        Returns
        -------
        Tensor
            ``[batch * tiles, heads, rows of a tile, head_dim]``.
        """
        picked = gather_rows(x, index.flatten(1), 0, 2).unflatten(2, index.shape[1:])
        return picked.transpose(1, 2).flatten(0, 1)

    for start in range(0, tiles, at_once):
        some = slice(start, min(start + at_once, tiles))
        visible = seen[:, some].flatten(0, 1)[:, None]
        chosen = (tiled(query, rows[:, some]), tiled(key, columns[:, some]), tiled(value, columns[:, some]))
        output = attend(*chosen, visible, scaling, dropout)
        output = output.unflatten(0, (batch, -1)).transpose(1, 2)
        yield some, output.reshape(batch, heads, -1, size)
