"""CDPruner: keep visual tokens that are relevant to the question and differ from each other."""

from dataclasses import dataclass

from vistrim.core.greedy import determinantal
from vistrim.core.schedules import check_keep
from vistrim.core.similarity import centered_cosines, cosines, distinctiveness, likeness_to_words, scaled_to_one
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register
from vistrim.methods.base.units import Over, check_over

LEAST = 1e-6
"""Relevance of the least relevant token, as a share of the range."""


@register
@dataclass(frozen=True)
class CDPruner(PerImage):
    r"""Keep visual tokens of each image that are relevant and diverse, before the decoder.

    The selection is the greedy maximum a posteriori of a determinantal point process with the kernel
    :math:`L = \mathrm{diag}(r)\, C\, \mathrm{diag}(r)`. C holds the cosines of the projected tokens, and r their
    relevance to the question, scaled to [0, 1] within the image. Each step adds the token that increases
    :math:`\det L_S` of the selected tokens S most. The relevance of a token is its mean cosine with the word embeddings
    of the question (the text after the last image).

    With ``center`` the kernel is that of Cen-Prune,
    :math:`L = \mathrm{diag}(r \tilde g)\, \bar C\, \mathrm{diag}(r \tilde g)`, with the cosines
    of :math:`x_i - \bar x` and the distinctiveness :math:`\tilde g` of `DivPrune`.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number of at least 2, or a share in (0, 1]. Common values are 64, 128 and 192
        of 576.
    center : bool
        Whether to subtract the mean token first, as in Cen-Prune.
    over : {"tile", "image", "prompt"}
        Scope of one selection: a tile of an image or frame of a video, as in the authors' code, with ``keep`` tokens
        for each; an image or video with all its tiles or frames; or the whole prompt. Tiles that the processor passes
        like images, as those of InternVL, are images. Relevance is always scaled within the image.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2506.10967 (NeurIPS 2025) and github.com/Theia-4869/CDPruner at 9541616. ``center`` is from Cen-Prune
    (2026).

    The authors compute relevance with CLIP, as the negated cosines of its projected patches and the output of its text
    tower. No multimodal model of transformers has that tower. Relevance is therefore computed from word embeddings, as
    in OpenVINO, and not negated. On Qwen2.5-VL this is less accurate than `DivPrune`, and every report says so.

    Other deviations: scores are in float32. If all tokens are equally relevant, relevance is ignored (the code divides
    by zero). When the rank of the kernel is exhausted, the remaining tokens are selected by relevance (the code
    continues with NaN).
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
        """Keep relevant tokens that differ from each other."""
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
        # Without exact ones, rounding would decide between tokens of equal quality.
        alike.fill_diagonal_(1)
        kernel = alike.mul_(quality).mul_(quality[:, None])
        return ImageChoice(determinantal(kernel, image.budget(self.keep)))
