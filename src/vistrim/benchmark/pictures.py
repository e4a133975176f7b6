"""Random pictures in the sizes in which a family's processor gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from vistrim.errors import BenchmarkError

if TYPE_CHECKING:
    from torch import Tensor

Draw: TypeAlias = "Callable[..., Tensor]"
"""Makes a tensor of normalised pixels of the given sizes."""


@dataclass(frozen=True)
class Pictures:
    """What a family's prompts show: any number of pictures, or of tiles of one, all of the same size.

    Attributes
    ----------
    tokens : int
        Visual tokens of each.
    pixels : tuple of int
        Sizes of each in ``pixel_values``.
    usual : int
        How many there are where nothing else is asked for.
    height, width : int
        Pixels of each as the user sees it.
    beside : mapping of str to tuple of int
        Other arguments, with a row for each.
    nested : bool
        Whether they have a dimension of their own within a sample, and a mask of their pixels.
    packed : bool
        Whether the patches of all of them lie in one sequence.
    """

    tokens: int
    pixels: tuple[int, ...]
    height: int
    width: int
    usual: int = 1
    beside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    nested: bool = False
    packed: bool = False

    def count(self, tokens: int | None) -> int:
        """How many make so many visual tokens; None: as usual.

        Raises
        ------
        BenchmarkError
            If no whole number of them does; names the nearest numbers of tokens.
        """
        tokens = self.usual * self.tokens if tokens is None else tokens
        if tokens % self.tokens:
            below = tokens // self.tokens * self.tokens
            raise impossible(tokens, {below, below + self.tokens}, f"multiples of {self.tokens}")
        return tokens // self.tokens

    def inputs(self, count: int, batch: int, draw: Draw) -> dict[str, Tensor]:
        """What the family's processor returns for so many in each sample of a batch, besides ids and mask."""
        import torch

        if self.nested:
            pixels = draw(batch, count, *self.pixels)
            return {"pixel_values": pixels, "pixel_attention_mask": torch.ones_like(pixels[:, :, 0], dtype=torch.long)}
        pixels = draw(batch * count, *self.pixels)
        rows = {name: torch.tensor([row] * (batch * count)) for name, row in self.beside.items()}
        return {"pixel_values": pixels.flatten(0, 1) if self.packed else pixels, **rows}


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
    nearest = " or ".join(str(n) for n in sorted(possible) if n > 0)
    return BenchmarkError(f"no picture makes {tokens} visual tokens of this model ({rule}): use {nearest}")
