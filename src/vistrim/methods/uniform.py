"""Evenly spaced visual tokens, a strong baseline at no cost."""

from dataclasses import dataclass

import torch

from vistrim.core.schedules import budget, check_budget
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class Uniform(PerImage):
    """Keep evenly spaced visual tokens of each image in raster order, before the decoder.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1].

    Raises
    ------
    ValueError
        If ``keep`` is out of range.
    """

    name = "uniform"
    summary = "Keeps evenly spaced visual tokens of each image (baseline)"
    source = "baseline"

    keep: int | float = 0.5

    def __post_init__(self) -> None:
        check_budget(self.keep)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the middle token of each of ``k`` equal segments of the raster."""
        return ImageChoice(evenly_spaced(image.n, budget(self.keep, image.n)))


def evenly_spaced(n: int, k: int) -> torch.Tensor:
    """Middles ``[k]`` (long) of ``k`` equal segments of ``n`` places."""
    return (2 * torch.arange(k) + 1) * n // (2 * k)
