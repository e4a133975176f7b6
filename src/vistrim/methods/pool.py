"""Average pooling of the visual tokens to a smaller grid, a strong baseline at no cost."""

from dataclasses import dataclass

import torch

from vistrim.core.layout import Grid
from vistrim.core.schedules import budget, check_keep
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class Pool(PerImage):
    """Average the visual tokens of each image over the cells of a smaller grid, before the decoder.

    Each cell is represented by the token nearest its center. It gets the mean of the projected features of the cell and
    keeps its position.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1]. The grid is the largest one with at most that
        many cells; of several, the one whose aspect ratio is closest to the image's grid.

    Raises
    ------
    ValueError
        If ``keep`` is out of range, or the image's tokens do not form a grid.
    """

    name = "pool"
    summary = "Averages the visual tokens of each image over a smaller grid (baseline)"
    source = "baseline"
    needs = "a token grid"
    needs_grid = True
    budget_parameter = "keep"

    keep: int | float = 0.25

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)

    def count(self, n: int, grid: Grid | None, images: int) -> int:
        """Return the number of cells."""
        rows, columns = smaller_grid(*(grid or (1, n)), budget(self.keep, n))
        return rows * columns

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Assign every token to the representative of its cell."""
        rows, columns = image.grid or (0, 0)
        if rows * columns != image.n:
            own = "have no grid" if image.grid is None else f"number {image.n} instead of {rows} x {columns}"
            raise ValueError(
                f"pool needs a grid of tokens, but the tokens of this image {own}: use uniform or random instead"
            )
        cell_rows, cell_columns = smaller_grid(rows, columns, budget(self.keep, image.n))
        row_cell, row_center = _cells(rows, cell_rows)
        column_cell, column_center = _cells(columns, cell_columns)
        centers = row_center[:, None] * columns + column_center[None, :]
        into = centers[row_cell[:, None], column_cell[None, :]].flatten()
        keep = centers.flatten()
        return ImageChoice(keep, into.index_fill(0, keep, -1))


def smaller_grid(rows: int, columns: int, cells: int) -> tuple[int, int]:
    """Return the largest grid (rows, columns) of at most ``cells`` cells; of several, the one closest in shape."""
    fits = ((r, min(columns, cells // r)) for r in range(1, min(rows, cells) + 1))
    return max(fits, key=lambda g: (g[0] * g[1], -abs(g[0] / g[1] - rows / columns)))


def _cells(length: int, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cell of each of ``length`` positions, and the position nearest the center of each cell."""
    place = torch.arange(length)
    cell = place * cells // length
    first = torch.arange(cells + 1) * length
    first = (first + cells - 1) // cells
    return cell, (first[:-1] + first[1:] - 1) // 2
