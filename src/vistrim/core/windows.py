"""Window attention of visual tokens: the grid is divided into tiles, each with the block of cells around it.

Gathering separate keys for each query would need the fewest operations but takes longer than attending to the whole
image. Instead, the queries of a tile share one block of keys. A mask hides the keys outside the window of a query.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

TILE = 6
"""Rows and columns of a tile. About the fastest size on CPUs for LLaVA-1.5-7B."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of a grid, and the keys of each.

    Attributes
    ----------
    queries : Tensor
        ``[tiles, n]`` long: cells of each tile, -1 outside the grid.
    keys : Tensor
        ``[tiles, m]`` long: cells of the block around each tile.
    near : Tensor
        ``[tiles, n, m]`` bool, True where the key lies in the window of the query.
    """

    queries: Tensor
    keys: Tensor
    near: Tensor

    @property
    def pairs(self) -> tuple[int, int]:
        """Number of queries computed per image, and number of keys per query."""
        return self.queries.numel(), self.keys.shape[1]


def tile_grid(rows: int, columns: int, window: int) -> Tiling:
    """Divide a grid into tiles for window attention.

    Parameters
    ----------
    rows, columns : int
        Size of the grid. Cells are numbered row by row.
    window : int
        Side of the window in cells, odd. Cells at most ``window // 2`` rows and columns away are in the window.

    Returns
    -------
    Tiling
        The tiles.
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
    """Divide one side of the grid into tiles.

    Returns
    -------
    list of tuple of Tensor
        For each tile, its lines and those of the block around it.
    """
    size = min(TILE + 2 * reach, length)
    spans = []
    for start in range(0, length, TILE):
        # At the border the block is shifted inwards, so that it stays within the grid.
        first = min(max(start - reach, 0), length - size)
        spans.append((torch.arange(start, start + TILE), torch.arange(first, first + size)))
    return spans


def rows_of_cells(cell: Tensor, present: Tensor, cells: int) -> Tensor:
    """Invert a map from rows to cells.

    Parameters
    ----------
    cell : Tensor
        ``[batch, rows]`` long: the cell of each row, numbered over all images of the sample.
    present : Tensor
        ``[batch, rows]`` bool, False for rows without a cell.
    cells : int
        Number of cells of all images of a sample.

    Returns
    -------
    Tensor
        ``[batch, cells]`` long: the row of each cell, -1 where there is none.
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
        ``[batch, images, cells]`` long: the row of the token in each cell, -1 where there is none.
    tiling : Tiling
        Tiles of the grid of one image.

    Returns
    -------
    queries : Tensor
        ``[batch, tiles of all images, n]`` long: rows, or -1.
    keys : Tensor
        ``[batch, tiles of all images, m]`` long: rows, or -1.
    near : Tensor
        ``[batch, tiles of all images, n, m]`` bool, True where both exist and the key is in the window of the query.
    """
    device = row_of_cell.device
    # An extra last cell without a token, which the index -1 selects.
    known = pad(row_of_cell, (0, 1), value=-1)
    queries, keys = known[..., tiling.queries.to(device)], known[..., tiling.keys.to(device)]
    near = tiling.near.to(device) & (queries >= 0)[..., None] & (keys >= 0)[..., None, :]
    return queries.flatten(1, 2), keys.flatten(1, 2), near.flatten(1, 2)
