"""CDPruner: tokens that the question is about and that are unlike each other."""

from dataclasses import dataclass

from vistrim.core.greedy import determinantal
from vistrim.core.schedules import check_keep
from vistrim.core.similarity import centered_cosines, cosines, distinctiveness, likeness_to_words, scaled_to_one
from vistrim.methods.base.method import Positions, check_positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, Over, PerImage, check_over
from vistrim.methods.base.registry import register

LEAST = 1e-6
"""What the least relevant token has of the range."""


@register
@dataclass(frozen=True)
class CDPruner(PerImage):
    r"""Keep tokens of each image that are relevant and diverse: the greedy MAP of a determinantal point process.

    With :math:`S` the cosines of the projected tokens and :math:`r` their relevance to the question, scaled to go from
    0 to 1 in the image, tokens are chosen one after another so that
    :math:`\det L_S` of :math:`L = \mathrm{diag}(r)\, S\, \mathrm{diag}(r)` grows most. Relevance is the mean cosine of
    a projected token and the word embeddings of the question (the text behind the last image).

    With ``center`` the kernel is Cen-Prune's,
    :math:`L = \mathrm{diag}(r \tilde g)\, \bar S\, \mathrm{diag}(r \tilde g)`, with the cosines
    of :math:`x_i - \bar x` and the distinctiveness of `DivPrune`.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number from 2 on, or a share in (0, 1]. 64, 128 and 192 of 576 are usual.
    center : bool
        Whether to correct for what all tokens have in common.
    over : {"tile", "image", "prompt"}
        Among which tokens is chosen together, and for which ``keep`` is: each tile of an image or frame of a video, as
        the authors do; an image or video with all of them; all of a prompt. Relevance is scaled in the image.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive as the authors have them, or each its own.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2506.10967 (NeurIPS 2025) and github.com/Theia-4869/CDPruner at 9541616; center: Cen-Prune (2026).

    The authors take relevance from CLIP: from the negated cosines of its projected patches and its text tower. No
    multimodal model of transformers has that tower, so that relevance is that of word embeddings, as OpenVINO has it,
    not negated. On Qwen2.5-VL this loses accuracy against `DivPrune`, and every report says so. Other deviations: in
    float32; where all tokens are equally relevant, relevance does not count (the code divides by zero); once the rank
    of the kernel is used up, the others follow by relevance (the code goes on with NaN).
    """

    name = "cdpruner"
    summary = "Keeps visual tokens that the question is about and that are unlike each other"
    needs = "the words of the question"
    source = "arXiv 2506.10967; Cen-Prune (2026)"
    reads_words = True
    caution = (
        "cdpruner took the question's relevance from word embeddings, as the model has no CLIP text tower: expect less "
        "accuracy than published, and compare with divprune"
    )
    budget_parameter = "keep"

    keep: int | float = 64
    center: bool = False
    over: Over = "tile"
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        check_over(self.over)
        check_positions(self.positions)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep relevant tokens that are unlike each other."""
        assert image.embeddings is not None
        assert image.whole_image is not None
        assert image.prompt is not None
        assert image.words is not None
        relevance = likeness_to_words(image.embeddings, image.prompt, image.words)
        among = None
        if image.whole_image is not image.embeddings:
            among = likeness_to_words(image.whole_image, image.prompt, image.words)
        quality = scaled_to_one(relevance, among, LEAST)
        if self.center:
            quality = quality * distinctiveness(image.embeddings)
        alike = centered_cosines(image.embeddings) if self.center else cosines(image.embeddings)
        # What is equally good is equal to the bit.
        alike.fill_diagonal_(1)
        return ImageChoice(determinantal(quality[:, None] * alike * quality, image.budget(self.keep)))
