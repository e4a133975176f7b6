"""How patches become visual tokens and how these lie, by hand: a matrix for each image, from sizes seen by eye."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Grid = tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """An image or a video.

    Attributes
    ----------
    weights : Tensor
        ``[tokens, tower tokens]``: what each visual token is made of; NaN for a newline. The tower's tokens are those
        of all pictures of the image, one behind the other.
    owner : tuple of int
        Picture of each token.
    grids : tuple
        Rows and columns of the tokens of each picture, or None.
    """

    weights: Tensor
    owner: tuple[int, ...]
    grids: tuple[Grid | None, ...]

    @property
    def counts(self) -> list[int]:
        """Tokens of each picture."""
        return [self.owner.count(picture) for picture in range(len(self.grids))]

    def of(self, values: Tensor) -> Tensor:
        """Visual tokens of the tower's values ``[tokens]`` or ``[tokens, width]``."""
        return self.weights @ values


def joined(parts: Sequence[Shown], newline: bool = False) -> Shown:
    """Frames of a video; with a newline behind the last of them, its tokens form no grid."""
    rows, columns = (sum(part.weights.shape[d] for part in parts) for d in (0, 1))
    weights, owner, grids = torch.zeros(rows, columns), [], []
    row = column = 0
    for part in parts:
        n, m = part.weights.shape
        weights[row : row + n, column : column + m] = part.weights
        row, column = row + n, column + m
        owner += [number + len(grids) for number in part.owner]
        grids += part.grids
    if not newline:
        return Shown(weights, tuple(owner), tuple(grids))
    weights = torch.cat([weights, torch.full((1, columns), torch.nan)])
    return Shown(weights, (*owner, len(grids) - 1), (*grids[:-1], None))


def square(side: int, cell: int = 1, before: int = 0, kept: int = 0) -> Shown:
    """One picture: squares of patches make a token, behind so many tokens of the tower, the last of which are kept."""
    tokens = side // cell
    weights = torch.zeros(kept + tokens**2, before + side**2)
    for token in range(kept):
        weights[token, before - kept + token] = 1
    for row in range(tokens):
        for column in range(tokens):
            patches = [
                before + y * side + x
                for y in range(row * cell, (row + 1) * cell)
                for x in range(column * cell, (column + 1) * cell)
            ]
            weights[kept + row * tokens + column, patches] = 1 / len(patches)
    return Shown(weights, (0,) * len(weights), (None if kept else (tokens, tokens),))


def shrunk_frame(side: int, tokens: int) -> Shown:
    """One picture, shrunk bilinearly."""
    along = shrinking(side, tokens)
    weights = torch.einsum("iy,jx->ijyx", along, along).flatten(2).flatten(0, 1)
    return Shown(weights, (0,) * len(weights), ((tokens, tokens),))


def shrinking(patches: int, tokens: int) -> Tensor:
    """``[tokens, patches]``: each token lies between two patches, and takes more of the nearer one."""
    weights = torch.zeros(tokens, patches)
    for token in range(tokens):
        center = (token + 0.5) * patches / tokens - 0.5
        left = math.floor(center)
        weights[token, max(left, 0)] += 1 - (center - left)
        weights[token, min(left + 1, patches - 1)] += center - left
    return weights


def mosaic(tiles: Grid, rows: range, columns: range, side: int, before: int = 0, shrunk: Grid | None = None) -> Shown:
    """An overview, and tiles of which some rows and columns of patches are left, perhaps shrunk; then newlines.

    A token belongs to the tile in which its center is, to the upper and left one on a border.
    """
    overview, per_tile = square(side, before=before), before + side**2
    height, width = shrunk or (len(rows), len(columns))
    along_y, along_x = shrinking(len(rows), height), shrinking(len(columns), width)
    weights, owner = [], list(overview.owner)
    for i in range(height):
        for j in range(width):
            made_of = torch.zeros(per_tile * (1 + tiles[0] * tiles[1]))
            for y, share_y in zip(rows, along_y[i], strict=True):
                for x, share_x in zip(columns, along_x[j], strict=True):
                    tile = 1 + y // side * tiles[1] + x // side
                    made_of[tile * per_tile + before + y % side * side + x % side] += share_y * share_x
            weights.append(made_of)
            down, right = (
                math.ceil((line[0] + (at + 0.5) * len(line) / count) / side - 1e-6) - 1
                for line, at, count in ((rows, i, height), (columns, j, width))
            )
            owner.append(1 + down * tiles[1] + right)
        weights.append(torch.full_like(made_of, torch.nan))
        owner.append(owner[-1])
    grids: list[Grid | None] = [(side, side)]
    for tile in range(1, 1 + tiles[0] * tiles[1]):
        # Of each row of the mosaic, how many tokens are of this tile.
        found = Counter(n // (width + 1) for n, of in enumerate(owner[side**2 :]) if of == tile)
        grids.append((len(found), max(found.values())) if found else None)
    first = torch.zeros(side**2, per_tile * (1 + tiles[0] * tiles[1]))
    first[:, :per_tile] = overview.weights
    return Shown(torch.cat([first, torch.stack(weights)]), tuple(owner), tuple(grids))
