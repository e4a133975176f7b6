"""HoloV: a token budget for each section of the image, so that every section is represented."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.groups import ranks, runs, shared_out
from vistrim.core.schedules import check_keep
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register
from vistrim.methods.base.units import Over, check_over


@register
@dataclass(frozen=True)
class HoloV(PerImage):
    r"""Distribute the tokens over sections of the image by mean attention, and keep the best of each section.

    The patches of an image in raster order are cut into ``crops`` sections of equal length. If the number of patches is
    not a multiple of ``crops``, the first sections have one patch more. Let :math:`w_c` be the mean class-token
    attention in section c, divided by the sum of these means over all sections. Section c keeps the
    :math:`\lfloor w_c T \rfloor` patches with the most attention. The sections with the largest :math:`w_c` keep one
    more each, until there are T patches.

    Parameters
    ----------
    keep : int or float
        :math:`T` per image: a whole number of at least 2, or a share in (0, 1]. Common values are 64, 128 and 192 of
        576.
    crops : int
        Number of sections, at least 1.
    over : {"image", "tile", "prompt"}
        Scope of one selection: an image or video with all its tiles or frames, as in the authors' code; a tile or
        frame, with ``keep`` tokens and ``crops`` sections for each; or the whole prompt. Tiles that the processor
        passes like images, as those of InternVL, are images.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2510.02912 (NeurIPS 2025) and github.com/obananas/HoloV at 1d2e65e. Where paper and code differ, this
    implementation follows the code: sections are consecutive patches in raster order, not boxes. The second term of the
    score is left out. It is 0.09 times the variance of the similarities in a section, scaled by the mean attention of
    the section over its mean variance. It therefore multiplies the scores of all sections by 1.09 and has no effect.

    Deviations: if a section would keep more tokens than it has, the surplus is distributed over the other sections in
    proportion to :math:`w_c`, whereas the code pads with zeros. Tokens are in raster order, whereas the code sorts them
    by descending attention in each section. For towers without a class token see
    `vistrim.methods.base.class_attention.ClassAttention`.
    """

    name = "holov"
    summary = "Divides the tokens among crops of the image by their attention, and keeps the best of each"
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
            raise ValueError(f"crops={self.crops}: must be a whole number from 1 on (crops of the image)")
        check_over(self.over)
        check_positions(self.positions)

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the block whose output becomes the visual tokens."""
        return (feature_block,)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the best patches of each section."""
        (scores,) = image.attention.values()
        count = image.budget(self.keep)
        if count == image.n:
            return ImageChoice(torch.arange(count))
        return ImageChoice(best_of_each(scores, min(self.crops, image.n), count))


def best_of_each(scores: Tensor, crops: int, count: int) -> Tensor:
    """Select the tokens of an image from all its sections.

    Parameters
    ----------
    scores : Tensor
        ``[n]`` float32: attention to each token. NaN for separators.
    crops : int
        Number of sections, at most n.
    count : int
        Number of tokens to select, less than n.

    Returns
    -------
    Tensor
        ``[count]`` long: the selected tokens, in raster order.
    """
    patches = ~scores.isnan()
    crop = runs(patches, crops)
    # A separator belongs to a section, but does not count in its mean and ranks last in it.
    totals = torch.zeros(crops, device=scores.device).scatter_add(0, crop, scores.nan_to_num())
    lengths = torch.zeros(crops, device=scores.device).scatter_add(0, crop, patches.float())
    sizes = torch.zeros(crops, dtype=torch.long, device=scores.device).scatter_add(0, crop, torch.ones_like(crop))
    given = shared_out(totals / lengths.clamp(min=1), sizes, count)
    stays = ranks(scores.nan_to_num(nan=-1.0), crop, crops) < given[crop]
    return (~stays).to(torch.uint8).argsort(stable=True)[:count]
