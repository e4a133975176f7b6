"""Pictures that make a wanted number of visual tokens, family by family, and their pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from vistrim.errors import BenchmarkError

Draw = Callable[..., Tensor]
"""Makes a tensor of normalised pixels of the given sizes."""


@dataclass(frozen=True)
class Pictures:
    """What one sample is shown.

    Attributes
    ----------
    tokens : int
        Visual tokens of all of it.
    count, height, width : int
        Pictures as the vision tower sees them (tiles, where a family cuts pictures up), and their pixels.
    description : str
        What was shown, in words.
    tower : dict
        What the tower's config must say to take pictures of this size.
    """

    tokens: int
    count: int
    height: int
    width: int
    description: str
    tower: dict[str, Any] = field(default_factory=dict)


class Family(Protocol):
    """How a family of models takes pictures."""

    @property
    def usual(self) -> int:
        """Visual tokens of one picture of usual size."""

    def show(self, tokens: int) -> Pictures:
        """Pictures that make so many visual tokens.

        Raises
        ------
        BenchmarkError
            If there are none; names the nearest numbers.
        """

    def inputs(self, pictures: Pictures, batch: int, draw: Draw) -> dict[str, Tensor]:
        """What the family's processor returns for the pictures of a batch, besides ids and mask."""


@dataclass(frozen=True)
class Tiles:
    """Pictures or tiles of one size, each of which makes the same number of visual tokens.

    Attributes
    ----------
    side : int
        Pixels along an edge.
    each : int
        Visual tokens of a tile.
    tiles : int
        Of a picture of usual size.
    nested : bool
        Whether the processor gives tiles a dimension of their own within a sample, and a mask of their pixels.
    """

    side: int
    each: int
    tiles: int = 1
    nested: bool = False

    @property
    def usual(self) -> int:
        """Visual tokens of one picture of usual size."""
        return self.tiles * self.each

    def show(self, tokens: int) -> Pictures:
        """So many tiles."""
        if tokens < 1 or tokens % self.each:
            below = tokens // self.each * self.each
            raise impossible(tokens, {below, below + self.each}, f"multiples of {self.each}")
        count = tokens // self.each
        return Pictures(tokens, count, self.side, self.side, f"{count} of {self.side} x {self.side} pixels")

    def inputs(self, pictures: Pictures, batch: int, draw: Draw) -> dict[str, Tensor]:
        """``pixel_values``, and ``pixel_attention_mask`` where tiles are nested."""
        sizes = (3, pictures.height, pictures.width)
        if not self.nested:
            return {"pixel_values": draw(batch * pictures.count, *sizes)}
        pixels = draw(batch, pictures.count, *sizes)
        return {"pixel_values": pixels, "pixel_attention_mask": torch.ones_like(pixels[:, :, 0], dtype=torch.long)}


@dataclass(frozen=True)
class Squares(Tiles):
    """LLaVA-1.5: several pictures of the tower's size, or one square picture of another size."""

    patch: int = 14

    def show(self, tokens: int) -> Pictures:
        """Several pictures, or one of another size."""
        if tokens >= 1 and tokens % self.each == 0:
            return super().show(tokens)
        root = math.isqrt(max(0, tokens))
        if tokens < 1 or root**2 != tokens:
            several = tokens // self.each * self.each
            near = {root**2, (root + 1) ** 2, several, several + self.each}
            raise impossible(tokens, near, f"square numbers and multiples of {self.each}")
        side = root * self.patch
        return Pictures(tokens, 1, side, side, f"1 of {side} x {side} pixels", {"image_size": side})


@dataclass(frozen=True)
class AnyRes:
    """LLaVA-NeXT: one picture of a possible size, seen as a whole and in tiles, with a newline token behind each row.

    Pictures of these sizes are not padded, so that all patches of their tiles become visual tokens.
    """

    grids: tuple[tuple[int, int], ...]
    """Rows and columns of tiles; the usual picture is the first."""
    side: int = 336
    patches: int = 24
    """Along an edge of a tile."""

    @property
    def usual(self) -> int:
        """Visual tokens of one picture of usual size."""
        return self._tokens(*self.grids[0])

    def show(self, tokens: int) -> Pictures:
        """The picture that makes so many."""
        possible = {self._tokens(*grid): grid for grid in self.grids}
        if tokens not in possible:
            raise impossible(tokens, set(possible), "one picture of a size that the model has, newline tokens included")
        rows, columns = possible[tokens]
        tiles, newlines = rows * columns + 1, rows * self.patches
        seen = f"{tiles} tiles = {tiles * self.patches**2} patches, and {newlines} newlines"
        height, width = rows * self.side, columns * self.side
        return Pictures(tokens, tiles, height, width, f"1 of {height} x {width} pixels: {seen}")

    def inputs(self, pictures: Pictures, batch: int, draw: Draw) -> dict[str, Tensor]:
        """``pixel_values`` of the tiles, and ``image_sizes``."""
        sizes = torch.tensor([[pictures.height, pictures.width]] * batch)
        return {"pixel_values": draw(batch, pictures.count, 3, self.side, self.side), "image_sizes": sizes}

    def _tokens(self, rows: int, columns: int) -> int:
        overview = self.patches**2
        return overview + rows * self.patches * (columns * self.patches + 1)


@dataclass(frozen=True)
class AnyGrid:
    """Qwen2.5-VL: one picture of any size, 2 x 2 patches of which make a visual token."""

    usual: int
    patch: int = 14
    merge: int = 2
    frames: int = 2
    """Times that the pixels of a still picture are given."""
    longest: int = 200
    """Sides whose ratio is larger are refused by the family's processor."""

    def show(self, tokens: int) -> Pictures:
        """The picture closest to a square."""
        rows = self._rows(tokens)
        if rows is None:
            near = range(max(1, tokens - 50), tokens + 50)
            possible = {n for n in near if self._rows(n) is not None}
            raise impossible(tokens, possible, f"grids whose sides differ by a factor of at most {self.longest}")
        height, width = (n * self.merge * self.patch for n in (rows, tokens // rows))
        return Pictures(tokens, 1, height, width, f"1 of {height} x {width} pixels")

    def inputs(self, pictures: Pictures, batch: int, draw: Draw) -> dict[str, Tensor]:
        """``pixel_values`` of all patches in one sequence, and ``image_grid_thw``."""
        rows, columns = pictures.height // self.patch, pictures.width // self.patch
        pixels = draw(batch * rows * columns, 3 * self.frames * self.patch**2)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, rows, columns]] * batch)}

    def _rows(self, tokens: int) -> int | None:
        rows = next((n for n in range(math.isqrt(max(0, tokens)), 0, -1) if tokens % n == 0), None)
        return None if rows is None or tokens > self.longest * rows**2 else rows


def impossible(tokens: int, possible: set[int], rule: str) -> BenchmarkError:
    """Say which numbers of visual tokens are nearest to one that cannot be had.

    Parameters
    ----------
    tokens : int
        The number asked for.
    possible : set of int
        Numbers around it; those below 1 do not count.
    rule : str
        Which numbers there are.
    """
    below = max((n for n in possible if 0 < n < tokens), default=None)
    above = min((n for n in possible if n > max(0, tokens)), default=None)
    nearest = " or ".join(str(n) for n in (below, above) if n is not None)
    return BenchmarkError(f"no picture makes {tokens} visual tokens of this model ({rule}): use {nearest}")
