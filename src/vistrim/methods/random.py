"""Random visual tokens: the baseline that every selection rule has to beat."""

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
        Seed of the choice. It depends on the seed, on the image's number within its prompt and on its number of
        tokens alone, so that a sample gets the same tokens in any batch.

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
        """Draw without replacement."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + image.number)
        return ImageChoice(torch.randperm(image.n, generator=generator)[: budget(self.keep, image.n)])
