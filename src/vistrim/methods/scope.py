"""SCOPE: patches that the class token attends to, as long as they cover what others do not."""

from dataclasses import dataclass

from vistrim.core.greedy import most_covering
from vistrim.core.schedules import check_keep
from vistrim.core.similarity import cosines
from vistrim.methods.base.method import Positions, check_positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, Over, PerImage, check_over
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class SCOPE(PerImage):
    r"""Keep patches of each image that are salient and cover the image, before the decoder.

    With :math:`C` the cosines of the vision tower's features and :math:`c_i`, at first 0, the best similarity of patch
    i to a chosen one, each round takes the patch with the largest
    :math:`a_j^\alpha \sum_i \max(0, C_{ij} - c_i)`; :math:`a` is the attention of the class token in the block whose
    output becomes the visual tokens. This is greedy facility location, weighted by saliency.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number from 2 on, or a share in (0, 1]. The authors use 192, 128 and 64
        of 576.
    alpha : float
        Weight of saliency, at least 0; with 0 coverage alone counts.
    over : {"tile", "image", "prompt"}
        Among which tokens is chosen together, and for which ``keep`` is: each tile of an image or frame of a video, as
        the authors do; an image or video with all of them; all of a prompt.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive as the authors have them, or each its own.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2510.24214 (NeurIPS 2025) and github.com/kinredon/SCOPE at 6bf7306, which has no license: this is
    written from the formulas. Deviations: in float32, where the code adds up to 576 terms in half precision; attention
    is the mean over heads instead of the sum, which ranks alike. Once nothing is left to cover, the others follow by
    attention. For a tower without a class token see `vistrim.methods.base.class_attention.ClassAttention`.
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
        """The block that makes the visual tokens."""
        return (feature_block,)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep salient patches that cover the image."""
        assert image.features is not None
        (scores,) = image.attention.values()
        # Separators cover nothing, and are worth less than any patch.
        weight = scores.clamp(min=0).pow(self.alpha).nan_to_num(nan=-1.0)
        return ImageChoice(most_covering(cosines(image.features.nan_to_num()), weight, image.budget(self.keep)))
