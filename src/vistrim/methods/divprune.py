"""DivPrune, with Cen-Prune as an option: keep visual tokens that differ from each other."""

from dataclasses import dataclass

from vistrim.core.greedy import farthest_first
from vistrim.core.schedules import check_keep
from vistrim.core.similarity import centered_cosines, cosines, distinctiveness
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register
from vistrim.methods.base.units import Over, check_over


@register
@dataclass(frozen=True)
class DivPrune(PerImage):
    r"""Keep visual tokens of each image that are far from each other, before the decoder.

    The selection is greedy max-min diversity. The distance of two projected tokens is
    :math:`D_{ij} = 1 - \cos(x_i, x_j)`. The first token is the one whose nearest other token is farthest away. Each
    further token is the one that is farthest from the set S of selected tokens,
    :math:`\arg\max_i \min_{s \in S} D_{is}`. Neither the text nor attention is used.

    With ``center`` this is Cen-Prune. The cosines are those of :math:`x_i - \bar x`, and each distance is multiplied by
    the distinctiveness of the token, :math:`\tilde g_i \min_{s \in S} D_{is}`, where :math:`\tilde g` is
    :math:`g_i = -\frac1{n-1} \sum_{j \ne i} \cos(x_i, x_j)` scaled to [0, 1].

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number of at least 2, or a share in (0, 1]. The authors' script keeps 0.098.
        Common values are 64, 128 and 192 of 576.
    center : bool
        Whether to subtract the mean token first, as in Cen-Prune.
    over : {"image", "tile", "prompt"}
        Scope of one selection: an image or video with all its tiles or frames, as in DivPrune; a tile or frame, as in
        Cen-Prune, with ``keep`` tokens for each; or the whole prompt. Tiles that the processor passes like images, as
        those of InternVL, are images.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2503.02175 (CVPR 2025) and github.com/vbdi/divprune at 799e2d9. The license of that code is
    non-commercial, so this implementation follows the formulas. Deviations: similarities are in float32, and a selected
    token is never a candidate again. The code computes in half precision, where the distance of a token to itself is
    not zero. It may therefore select a token twice, and its first choice depends on such a distance. Half a token of a
    share rounds up, not to the even number.

    Cen-Prune (2026) is implemented from its paper, without code for comparison. Its first choice is assumed to be that
    of DivPrune on centered cosines. Its standardized variant, which the appendix of the paper defines, is not
    implemented.
    """

    name = "divprune"
    summary = "Keeps visual tokens of each image that are unlike each other"
    source = "arXiv 2503.02175; Cen-Prune (2026)"
    budget_parameter = "keep"

    keep: int | float = 64
    center: bool = False
    over: Over = "image"
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        check_over(self.over)
        check_positions(self.positions)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep tokens that are far from each other."""
        assert image.embeddings is not None
        alike = centered_cosines(image.embeddings) if self.center else cosines(image.embeddings)
        weight = distinctiveness(image.embeddings) if self.center else None
        return ImageChoice(farthest_first(1 - alike, image.budget(self.keep), weight))
