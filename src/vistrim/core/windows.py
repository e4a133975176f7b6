"""Attention of image tokens to their neighbours: the grid is cut into tiles, each with the block of cells around it.

Single queries with keys of their own would compute least, but gathering their keys takes longer than attending to the
whole image. The queries of a tile share one block of keys, of which a mask hides what is too far away for some.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

TILE = 6
"""Rows and columns of a tile: about the fastest on processors at the size of LLaVA-1.5-7B."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of a grid, and the keys of each.

    Attributes
    ----------
    queries : Tensor
        ``[tiles, n]`` long: cells of each tile; -1 where it reaches beyond the grid.
    keys : Tensor
        ``[tiles, m]`` long: cells of the block around it.
    near : Tensor
        ``[tiles, n, m]`` bool: whether the key lies in the query's window.
    """

    queries: Tensor
    keys: Tensor
    near: Tensor

    @property
    def pairs(self) -> tuple[int, int]:
        """Queries of one image that are computed, and keys of each."""
        return self.queries.numel(), self.keys.shape[1]


def tile_grid(rows: int, columns: int, window: int) -> Tiling:
    """Cut a grid into tiles for attention within a window.

    Parameters
    ----------
    rows, columns : int
        Of the grid, whose cells are numbered row by row.
    window : int
        Odd: cells at most ``window // 2`` rows and columns away are near.
    """
    reach = window // 2
    down, along = _spans(rows, reach), _spans(columns, reach)
    queries, keys = [], []
    for tile_rows, block_rows in down:
        for tile_columns, block_columns in along:
            inside = (tile_rows < rows)[:, None] & (tile_columns < columns)
            cells = tile_rows[:, None] * columns + tile_columns
            queries.append(torch.where(inside, cells, -1).flatten())
            keys.append((block_rows[:, None] * columns + block_columns).flatten())
    q, k = torch.stack(queries), torch.stack(keys)

    apart_down = (q[:, :, None] // columns - k[:, None] // columns).abs()
    apart_along = (q[:, :, None] % columns - k[:, None] % columns).abs()
    near = (apart_down <= reach) & (apart_along <= reach) & (q >= 0)[:, :, None]
    return Tiling(q, k, near)


def _spans(length: int, reach: int) -> list[tuple[Tensor, Tensor]]:
    """For each tile along one side of the grid: its lines, and those of the block around it."""
    size = min(TILE + 2 * reach, length)
    spans = []
    for start in range(0, length, TILE):
        # At the rim the block is moved inwards, so that every line of it is one of the grid's.
        first = min(max(start - reach, 0), length - size)
        spans.append((torch.arange(start, start + TILE), torch.arange(first, first + size)))
    return spans


def rows_of_cells(cell: Tensor, present: Tensor, cells: int) -> Tensor:
    """Turn the cell of each row into the row of each cell.

    Parameters
    ----------
    cell : Tensor
        ``[batch, rows]`` long: the cell that a row shows, counted over all images of the sample.
    present : Tensor
        ``[batch, rows]`` bool: False for rows that show none.
    cells : int
        Cells of all images of a sample.

    Returns
    -------
    Tensor
        ``[batch, cells]`` long; -1 for cells whose token is not there.
    """
    batch, rows = cell.shape
    found = torch.full((batch, cells + 1), -1, device=cell.device)
    places = torch.arange(rows, device=cell.device).expand(batch, -1)
    return found.scatter_(1, torch.where(present, cell, cells), places)[:, :cells]


def lay_tiles(row_of_cell: Tensor, tiling: Tiling) -> tuple[Tensor, Tensor, Tensor]:
    """Lay tiles over the images of each sample.

    Parameters
    ----------
    row_of_cell : Tensor
        ``[batch, images, cells]`` long: the row of each cell's token; -1 where there is none.
    tiling : Tiling
        Of one image's grid.

    Returns
    -------
    queries : Tensor
        ``[batch, tiles, n]`` long: rows, or -1; the tiles of all images.
    keys : Tensor
        ``[batch, tiles, m]`` long: rows, or -1.
    near : Tensor
        ``[batch, tiles, n, m]`` bool: whether both are there and the key lies in the query's window.
    """
    device = row_of_cell.device
    # A last cell that is never there, which the number -1 finds.
    known = pad(row_of_cell, (0, 1), value=-1)
    queries, keys = known[..., tiling.queries.to(device)], known[..., tiling.keys.to(device)]
    near = tiling.near.to(device) & (queries >= 0)[..., None] & (keys >= 0)[..., None, :]
    return queries.flatten(1, 2), keys.flatten(1, 2), near.flatten(1, 2)
