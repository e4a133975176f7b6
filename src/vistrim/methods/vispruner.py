"""VisPruner: patches that the class token attends to most, and a diverse set of the others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.schedules import budget
from vistrim.core.similarity import cosines
from vistrim.methods.base.class_attention import ClassAttention, ranking
from vistrim.methods.base.method import Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens
from vistrim.methods.base.registry import register

REMOVED_AT_ONCE = 8


@register
@dataclass(frozen=True)
class VisPruner(ClassAttention):
    r"""Keep the important patches of each image and a diverse subset of the others, before the decoder.

    Of ``T`` tokens to keep, ``int(T * important)`` are selected as in `FasterVLM`. The others are sorted by
    descending score and pruned until the remaining number is left. In each round, the list is split alternately into
    two halves. The members of the first half (up to 8) with the highest similarity to a member of the second half, by
    the cosine of their vision-tower features, are dropped. The rest of the first half, most similar first, is placed in
    front of the second half.

    Parameters
    ----------
    keep : int or float
        Tokens per image to keep: a whole number, or a share in (0, 1]. The authors use 128, 64 and 32 of 576.
    important : float
        Share of these tokens that is chosen by class attention alone, in [0, 1]. With 1 this is `FasterVLM`.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: VisPruner (ICCV 2025; later versions of arXiv 2412.01818) and github.com/Theia-4869/VisPruner at aefa01a.
    Its examples set ``important`` to 0.5 for 128 tokens and 0.75 for 64. The values for its tables are not
    published. The code fails if the list has an odd number of tokens, because its first half then has one member too
    many. Here the first half may have one member more, and if it has fewer than 8 members, at most all of them are
    dropped.
    """

    counts_patches = True

    name = "vispruner"
    summary = "Keeps the patches that the class token attends to most, and a diverse subset of the others"
    source = "VisPruner, arXiv 2412.01818"

    keep: int | float = 128
    important: float = 0.5
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important <= 1:
            raise ValueError(
                f"important={self.important}: must be between 0 and 1 (the share chosen by attention alone)"
            )

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the block whose output becomes the visual tokens."""
        return (feature_block,)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the important and the diverse patches."""
        assert image.features is not None
        kept = budget(self.keep, image.n)
        important = int(kept * self.important)
        patches = image.n if image.patches is None else image.patches
        order = ranking(self.scores(image))
        if kept >= patches:
            return ImageChoice(order[:kept])
        similarity = cosines(image.features)
        others = thinned_out(order[important:patches], similarity, kept - important)
        return ImageChoice(torch.cat([order[:important], others]))


def thinned_out(ranked: Tensor, similarity: Tensor, left: int) -> Tensor:
    """Drop the most redundant tokens until ``left`` tokens remain.

    Parameters
    ----------
    ranked : Tensor
        ``[m]`` long: the tokens, best first.
    similarity : Tensor
        ``[n, n]``: similarity of all pairs of tokens, symmetric.
    left : int
        Number of tokens to keep, from 0 to m.

    Returns
    -------
    Tensor
        ``[left]`` long: the remaining tokens.
    """
    if left == 0:
        return ranked[:0]
    while len(ranked) > left:
        first, second = ranked[0::2], ranked[1::2]
        # Rows are copied faster than single entries.
        redundancy = similarity.index_select(0, second).amax(0)[first]
        falling = redundancy.argsort(descending=True, stable=True)
        gone = min(REMOVED_AT_ONCE, len(ranked) - left, len(first))
        ranked = torch.cat([first[falling[gone:]], second])
    return ranked
