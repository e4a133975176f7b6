"""Random visual tokens, the minimum baseline for every selection rule."""

from dataclasses import dataclass

import torch

from vistrim.core.schedules import budget, check_budget
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class Random(PerImage):
    """Keep random visual tokens of each image, before the decoder.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1].
    seed : int
        Random seed. The choice depends only on the seed, the index of the image in its prompt and its number of tokens,
        so that a sample gets the same tokens in any batch.

    Raises
    ------
    ValueError
        If ``keep`` is out of range.
    """

    name = "random"
    summary = "Keeps random visual tokens of each image (baseline)"
    source = "baseline"

    keep: int | float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_budget(self.keep)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Draw tokens without replacement."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + image.number)
        return ImageChoice(torch.randperm(image.n, generator=generator)[: budget(self.keep, image.n)])
