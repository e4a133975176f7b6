"""Methods that rank the visual tokens of each image by attention in the vision tower."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.schedules import budget, check_keep
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.method import Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage


@dataclass(frozen=True)
class ClassAttention(PerImage):
    """Base class of methods that rank by the attention of the class token.

    The score of a patch is the attention that it receives from the class token, summed over the requested blocks.

    In a vision tower without a class token, it is the mean attention that the patch receives from all patches of its
    image. The authors of FasterVLM recommend this for such towers (VisPruner repository, issue 1). In blocks with
    windowed attention (Qwen2.5-VL), patches outside the window contribute zero.

    If several patches form one visual token, its score is their mean. If the visual tokens are built from several
    blocks, the deepest one counts as the feature block. A class token that is itself a visual token is scored by the
    attention it pays to itself.

    Raises
    ------
    ValueError
        If ``keep`` is neither a share in (0, 1] nor a whole number of at least 2, or ``positions`` is unknown.
    """

    reads_vision = True
    budget_parameter = "keep"
    needs = "attention of the class token in the vision tower (without one: attention received, mean)"

    @property
    @abstractmethod
    def keep(self) -> int | float:
        """Number of visual tokens to keep per image (int), or share of them (float)."""

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """RoPE positions of the remaining tokens."""

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        check_positions(self.positions)

    def scores(self, image: ImageTokens) -> Tensor:
        """Compute the score of each visual token of an image.

        Parameters
        ----------
        image : ImageTokens
            Visual tokens that are selected together.

        Returns
        -------
        Tensor
            ``[n]`` float32. NaN for separators, which are not patches.
        """
        return torch.stack(list(image.attention.values())).sum(0)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the patches with the highest scores.

        Parameters
        ----------
        image : ImageTokens
            Visual tokens that are selected together.

        Returns
        -------
        ImageChoice
            The kept patches. Ties go to the earlier patch, and separators are removed first.
        """
        order = ranking(self.scores(image))
        return ImageChoice(order[: budget(self.keep, image.n)])


def ranking(scores: Tensor) -> Tensor:
    """Rank tokens by decreasing score.

    Parameters
    ----------
    scores : Tensor
        ``[n]`` float. NaN for tokens that are not patches.

    Returns
    -------
    Tensor
        ``[n]`` long: indices of the tokens. Those without a score (NaN) come last.
    """
    return scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
