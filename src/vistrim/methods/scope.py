"""SCOPE: keep patches with much class-token attention that together cover the image."""

from dataclasses import dataclass

from vistrim.core.greedy import most_covering
from vistrim.core.schedules import check_keep
from vistrim.core.similarity import cosines
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register
from vistrim.methods.base.units import Over, check_over


@register
@dataclass(frozen=True)
class SCOPE(PerImage):
    r"""Keep patches of each image that are salient and together cover the image, before the decoder.

    The selection is greedy facility location, weighted by saliency. Each step selects the patch j with the largest
    :math:`a_j^\alpha \sum_i \max(0, C_{ij} - c_i)`. Here C holds the cosines of the vision tower's features, and
    :math:`c_i` is the highest similarity of patch i to a selected patch, initially 0. The saliency a is the attention
    of the class token in the block whose output becomes the visual tokens.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number of at least 2, or a share in (0, 1]. The authors use 192, 128 and 64
        of 576.
    alpha : float
        Exponent of the saliency, at least 0. With 0, only coverage counts.
    over : {"tile", "image", "prompt"}
        Scope of one selection: a tile of an image or frame of a video, as in the authors' code, with ``keep`` tokens
        for each; an image or video with all its tiles or frames; or the whole prompt. Tiles that the processor passes
        like images, as those of InternVL, are images.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2510.24214 (NeurIPS 2025) and github.com/kinredon/SCOPE at 6bf7306. That code has no license, so this
    implementation follows the formulas. Deviations: sums are in float32, whereas the code adds up to 576 terms in half
    precision. Attention is the mean over heads instead of the sum, which gives the same ranking. When no patch adds
    coverage, the remaining ones are selected by attention. For towers without a class token see
    `vistrim.methods.base.class_attention.ClassAttention`.
    """

    name = "scope"
    summary = "Keeps patches that the class token attends to and that cover what others do not"
    needs = "attention of the class token and features of the vision tower (without one: attention received, mean)"
    source = "arXiv 2510.24214"
    reads_vision = True
    budget_parameter = "keep"

    keep: int | float = 64
    alpha: float = 1.0
    over: Over = "tile"
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        if not self.alpha >= 0:
            raise ValueError(f"alpha={self.alpha}: must be at least 0 (the weight of saliency)")
        check_over(self.over)
        check_positions(self.positions)

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the block whose output becomes the visual tokens."""
        return (feature_block,)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep salient patches that cover the image."""
        assert image.features is not None
        (scores,) = image.attention.values()
        # Separators cover nothing and rank below all patches.
        weight = scores.clamp(min=0).pow(self.alpha).nan_to_num(nan=-1.0)
        return ImageChoice(most_covering(cosines(image.features.nan_to_num()), weight, image.budget(self.keep)))
