"""Random images in the sizes in which a family's processor returns them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from vistrim.errors import BenchmarkError

if TYPE_CHECKING:
    from torch import Tensor

Draw: TypeAlias = "Callable[..., Tensor]"
"""Makes a tensor of normalized pixels of the given sizes."""


@dataclass(frozen=True)
class Images:
    """The images of a family's prompts: any number of images, or of tiles of one image, all of the same size.

    Attributes
    ----------
    tokens : int
        Visual tokens of each image or tile.
    pixels : tuple of int
        Sizes of each in ``pixel_values``.
    usual : int
        Default number of images or tiles.
    height, width : int
        Pixels of each as the user sees it.
    beside : mapping of str to tuple of int
        Other arguments, with a row for each image or tile.
    nested : bool
        Whether they have their own dimension within a sample, and a mask of their pixels.
    packed : bool
        Whether the patches of all of them are in one sequence.
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
        """Number of images that have this many visual tokens; the default number for None.

        Raises
        ------
        BenchmarkError
            If no whole number of images does; the message names the nearest numbers of tokens.
        """
        tokens = self.usual * self.tokens if tokens is None else tokens
        if tokens % self.tokens:
            below = tokens // self.tokens * self.tokens
            raise impossible(tokens, {below, below + self.tokens}, f"multiples of {self.tokens}")
        return tokens // self.tokens

    def inputs(self, count: int, batch: int, draw: Draw) -> dict[str, Tensor]:
        """Processor output for ``count`` images in each sample of a batch, without ids and attention mask."""
        import torch

        if self.nested:
            pixels = draw(batch, count, *self.pixels)
            return {"pixel_values": pixels, "pixel_attention_mask": torch.ones_like(pixels[:, :, 0], dtype=torch.long)}
        pixels = draw(batch * count, *self.pixels)
        rows = {name: torch.tensor([row] * (batch * count)) for name, row in self.beside.items()}
        return {"pixel_values": pixels.flatten(0, 1) if self.packed else pixels, **rows}


def impossible(tokens: int, possible: set[int], rule: str) -> BenchmarkError:
    """Make the error for an impossible number of visual tokens, with the nearest possible ones.

    Parameters
    ----------
    tokens : int
        The requested number.
    possible : set of int
        Possible numbers around it; those below 1 are ignored.
    rule : str
        Description of the possible numbers.
    """
    nearest = " or ".join(str(n) for n in sorted(possible) if n > 0)
    return BenchmarkError(f"no number of images has {tokens} visual tokens in this model ({rule}): use {nearest}")
