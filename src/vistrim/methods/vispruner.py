"""VisPruner: patches that the class token attends to, and patches unlike each other."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vistrim.core.schedules import budget
from vistrim.methods.base.class_attention import ClassAttention, ranking
from vistrim.methods.base.method import Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens
from vistrim.methods.base.registry import register

REMOVED_AT_ONCE = 8


@register
@dataclass(frozen=True)
class VisPruner(ClassAttention):
    r"""Keep the important patches of each image and, of the others, those that differ most, before the decoder.

    ``int(T * important_ratio)`` of the ``T`` tokens to keep are those of `FasterVLM`. The others are listed by falling
    score and thinned out until the rest of ``T`` is left: in each round the list is dealt out to two halves by turns,
    and the (up to 8) members of the first half that are most like some member of the second, by the cosine of their
    vision-tower features, are dropped. What is left of the first half, most alike first, goes in front of the second.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1]. The authors use 128, 64 and 32 of 576.
    important_ratio : float
        Share of them that is chosen by class attention alone, in [0, 1]. With 1 this is `FasterVLM`.
    positions : {"renumber", "original"}
        RoPE positions of the tokens that are left: consecutive as the authors have them, or each its own.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: VisPruner (ICCV 2025; later versions of arXiv 2412.01818) and github.com/Theia-4869/VisPruner at aefa01a.
    Its examples set ``important_ratio`` to 0.5 for 128 tokens and 0.75 for 64; the values behind its tables are not
    stated. The code fails where an odd number of tokens is to be thinned out, as its first half then has one member
    more than it makes room for. Here that member is just one of the half; and where the half has fewer than 8 members,
    all of them go at most.
    """

    name = "vispruner"
    summary = "Keeps patches that the class token attends to, and of the others those that differ most"
    source = "VisPruner, arXiv 2412.01818"

    keep: int | float = 128
    important_ratio: float = 0.5
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important_ratio <= 1:
            raise ValueError(
                f"important_ratio={self.important_ratio}: must be between 0 and 1 (the share chosen by attention alone)"
            )

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """The block that makes the visual tokens."""
        return (feature_block,)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the important and the diverse patches."""
        assert image.features is not None
        kept = budget(self.keep, image.n)
        important = int(kept * self.important_ratio)
        scores = self.scores(image)
        order, patches = ranking(scores), int(scores.isfinite().sum())
        if kept >= patches:
            return ImageChoice(order[:kept])
        similarity = _cosines(image.features)
        others = thinned_out(order[important:patches], similarity, kept - important)
        return ImageChoice(torch.cat([order[:important], others]))


def thinned_out(ranked: Tensor, similarity: Tensor, left: int) -> Tensor:
    """Drop the most redundant of some tokens until ``left`` of them are left.

    Parameters
    ----------
    ranked : Tensor
        ``[m]`` long: the tokens, best first.
    similarity : Tensor
        ``[n, n]``: of all tokens.
    left : int
        From 0 to m.

    Returns
    -------
    Tensor
        ``[left]`` long.
    """
    if left == 0:
        return ranked[:0]
    while len(ranked) > left:
        first, second = ranked[0::2], ranked[1::2]
        redundancy = similarity[first[:, None], second].amax(1)
        falling = redundancy.argsort(descending=True, stable=True)
        gone = min(REMOVED_AT_ONCE, len(ranked) - left, len(first))
        ranked = torch.cat([first[falling[gone:]], second])
    return ranked


def _cosines(features: Tensor) -> Tensor:
    unit = normalize(features.float(), dim=-1)
    return unit @ unit.T
