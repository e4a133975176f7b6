"""Downsample: shrink the image before the vision tower (a baseline)."""

from dataclasses import dataclass, field

import torch

from vistrim.core.layout import Grid
from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import budget, check_keep
from vistrim.core.selection import Selection
from vistrim.errors import UnsupportedGenerationError
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.registry import register
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.methods.base.stage_inputs import InputTokens
from vistrim.methods.base.units import units
from vistrim.methods.pool import smaller_grid


@register
@dataclass(frozen=True)
class Downsample(Method):
    """Shrink every image by area averaging, so that the vision tower computes fewer patches.

    The position embeddings of the tower are interpolated. The features of the smaller image replace its first
    placeholders, and the other placeholders are removed. This is the baseline for methods with the same number of
    tokens: a user could also send a smaller image.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number of at least 2, or a share in (0, 1]. The image gets the largest grid
        with at most that many patches; of several, the one whose aspect ratio is closest to the original grid.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens and of the text after them: consecutive, as if the prompt had only these
        placeholders, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    The method works for models with the same grid of patches for all images, in which each patch becomes a visual
    token. On models whose processor chooses the grid, an error names the option of the processor for smaller images.
    """

    name = "downsample"
    summary = "Shrinks each image before the vision tower (baseline)"
    needs = "a tower with one grid of patches for all images, whose position embeddings can be interpolated"
    stages = ("input",)
    kv_cache = "small in every layer"
    source = "baseline"
    shrinks_images = True
    budget_parameter = "keep"

    keep: int | float = 0.25
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        check_positions(self.positions)

    def fitted(self, model: ModelFacts) -> Method:
        """Return the method with the grid of the smaller images."""
        if model.grid is None:
            return self
        rows, columns = model.grid
        grid = smaller_grid(rows, columns, budget(self.keep, rows * columns))
        return FittedDownsample(self.keep, self.positions, grid=grid)


@dataclass(frozen=True)
class FittedDownsample(Downsample):
    """`Downsample`, fitted to a model.

    Parameters
    ----------
    keep, positions
        As for `Downsample`.
    grid : tuple of int
        Rows and columns of patches of a smaller image.
    """

    grid: Grid = field(kw_only=True)

    @property
    def shrunk_grid(self) -> Grid:
        """Rows and columns of patches of a smaller image."""
        return self.grid

    def input_count(self, sample: SampleSizes) -> int:
        """Return the number of patches of the smaller images."""
        return sum(min(n, self.grid[0] * self.grid[1]) for n in sample.images)

    def select_input(self, tokens: InputTokens) -> Selection:
        """Keep the first placeholders of each image, which hold the features of the smaller image.

        Raises
        ------
        UnsupportedGenerationError
            If the images were encoded before, at their original size.
        """
        if any(grid is not None for grids in tokens.grids for grid in grids):
            raise UnsupportedGenerationError(
                "downsample shrinks images before the vision tower, but these were encoded before: pass `pixel_values`"
            )
        keep, counts = torch.zeros_like(tokens.visual), []
        for sample in range(len(tokens.images)):
            kept = 0
            for unit in units(tokens, sample, "tile"):
                count = min(unit.n, self.grid[0] * self.grid[1])
                keep[sample, unit.where[:count]] = True
                kept += count
            counts.append(kept)
        return Selection(keep, tuple(counts), renumber=self.renumbers)
