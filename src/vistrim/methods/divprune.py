"""DivPrune, and Cen-Prune with it: keep tokens that are unlike each other."""

from dataclasses import dataclass

from vistrim.core.greedy import farthest_first
from vistrim.core.schedules import check_keep
from vistrim.core.similarity import centered_cosines, cosines, distinctiveness
from vistrim.methods.base.method import Positions, check_positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, Over, PerImage, check_over
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class DivPrune(PerImage):
    r"""Keep tokens of each image that are far from each other, before the decoder: greedy max-min diversity.

    With :math:`D_{ij} = 1 - \cos(x_i, x_j)` of the projected tokens, the first is the one whose nearest other is
    farthest, and each of the others the one that is farthest from all chosen, :math:`\arg\max_i \min_{s \in S} D_{is}`.
    Neither the text nor any attention has a say.

    With ``center`` this is Cen-Prune: the cosines are those of :math:`x_i - \bar x`, and each distance is multiplied by
    the token's distinctiveness, :math:`\tilde g_i \min_{s \in S} D_{is}`, where :math:`\tilde g` is
    :math:`g_i = -\frac1{n-1} \sum_{j \ne i} \cos(x_i, x_j)` scaled to [0, 1].

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number from 2 on, or a share in (0, 1]. The authors' script keeps 0.098; 64,
        128 and 192 of 576 are usual.
    center : bool
        Whether to correct for what all tokens have in common.
    over : {"image", "tile", "prompt"}
        Among which tokens is chosen together: those of an image or video with all its tiles or frames, as DivPrune's
        authors do; those of each tile or frame, as Cen-Prune's do (``keep`` then counts for each); all of a prompt.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive as the authors have them, or each its own.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2503.02175 (CVPR 2025) and github.com/vbdi/divprune at 799e2d9, whose terms are non-commercial: this
    is written from the formulas. Deviations: similarities are in float32 and a chosen token is never a candidate again.
    In the code they are in half precision, where the distance of a token to itself is not zero: a token may be chosen
    twice, and the first choice goes by such a distance. Half a token of a share rounds up, not to the even number.
    Cen-Prune (2026) is known from its paper alone; its first choice is taken to be DivPrune's on centered cosines, and
    its standardized variant, whose definition is in an appendix, is not here.
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
        """Keep tokens far from each other."""
        assert image.embeddings is not None
        alike = centered_cosines(image.embeddings) if self.center else cosines(image.embeddings)
        weight = distinctiveness(image.embeddings) if self.center else None
        return ImageChoice(farthest_first(1 - alike, image.budget(self.keep), weight))
