"""HoloV: a budget for each stretch of the image, so that no part of it goes without."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.groups import ranks, runs, shared_out
from vistrim.core.schedules import check_keep
from vistrim.methods.base.method import Positions, check_positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, Over, PerImage, check_over
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class HoloV(PerImage):
    r"""Share out the tokens to stretches of the image by their mean attention, and keep the best of each.

    An image's patches in raster order are cut into ``crops`` stretches of equal length (the first ones are longer by
    one if need be). With :math:`w_c` the share of the mean class-token attention of stretch c in the sum over all
    stretches, it keeps :math:`\lfloor w_c T \rfloor` of its patches, those with most attention; what is missing to T
    goes one each to the stretches with the largest :math:`w_c`.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number from 2 on, or a share in (0, 1]. 64, 128 and 192 of 576 are usual.
    crops : int
        Stretches.
    over : {"image", "tile", "prompt"}
        Among which tokens is chosen together: those of an image or video with all its tiles or frames, as the authors
        do; those of each tile or frame (``keep`` and ``crops`` then count for each); all of a prompt.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive as the authors have them, or each its own.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2510.02912 (NeurIPS 2025) and github.com/obananas/HoloV at 1d2e65e. The code is followed where the
    paper differs: stretches are runs of the raster, not boxes. Its second term, 0.09 times the variance of the
    similarities in a stretch, is scaled by the stretch's own mean attention over its mean variance: it multiplies the
    scores of all stretches by 1.09 and changes nothing, so that it is left out.

    Deviations: a stretch that would get more tokens than it has leaves the surplus to the others by their shares, where
    the code fills up with zeros; tokens are in raster order, where the code has them by falling attention in each
    stretch. For a tower without a class token see `vistrim.methods.base.class_attention.ClassAttention`.
    """

    name = "holov"
    summary = "Shares out the tokens to stretches of the image by their attention, and keeps the best of each"
    needs = "attention of the class token in the vision tower (without one: attention received, mean)"
    source = "arXiv 2510.02912"
    reads_vision = True
    budget_parameter = "keep"

    keep: int | float = 64
    crops: int = 16
    over: Over = "image"
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        if type(self.crops) is not int or self.crops < 1:
            raise ValueError(f"crops={self.crops}: must be a whole number from 1 on (stretches of the image)")
        check_over(self.over)
        check_positions(self.positions)

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """The block that makes the visual tokens."""
        return (feature_block,)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the best patches of each stretch."""
        (scores,) = image.attention.values()
        count = image.budget(self.keep)
        if count == image.n:
            return ImageChoice(torch.arange(count))
        return ImageChoice(best_of_each(scores, min(self.crops, image.n), count))


def best_of_each(scores: Tensor, crops: int, count: int) -> Tensor:
    """Choose ``count`` of n tokens, fewer than all, by their scores ``[n]`` (NaN for separators): ``[count]`` long."""
    patches = ~scores.isnan()
    crop = runs(patches, crops)
    # Separators are in a stretch, but do not count, and are its last.
    totals = torch.zeros(crops, device=scores.device).scatter_add(0, crop, scores.nan_to_num())
    lengths = torch.zeros(crops, device=scores.device).scatter_add(0, crop, patches.float())
    sizes = torch.zeros(crops, dtype=torch.long, device=scores.device).scatter_add(0, crop, torch.ones_like(crop))
    given = shared_out(totals / lengths.clamp(min=1), sizes, count)
    stays = ranks(scores.nan_to_num(nan=-1.0), crop, crops) < given[crop]
    return (~stays).to(torch.uint8).argsort(stable=True)[:count]
