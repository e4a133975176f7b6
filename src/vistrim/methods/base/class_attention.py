"""Methods that rank the visual tokens of each image by the vision tower's own attention, before the decoder."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.schedules import budget, check_keep
from vistrim.methods.base.method import Positions, check_positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage


@dataclass(frozen=True)
class ClassAttention(PerImage):
    """Base class: the attention that the class token pays to each patch, summed over the blocks asked for.

    In a tower without a class token it is the mean attention that a patch receives from all patches of its image, as
    FasterVLM's authors advise for such towers (VisPruner repository, issue 1); in blocks with windows (Qwen2.5-VL),
    patches outside of its window pay nothing. Where several patches become one visual token, it has their mean. Where
    the visual tokens are made of several blocks, the deepest counts as the one that makes them. A class token that is
    itself a visual token is scored by the attention it pays to itself.
    """

    reads_vision = True
    budget_parameter = "keep"
    needs = "attention of the class token in the vision tower (without one: attention received, mean)"

    @property
    @abstractmethod
    def keep(self) -> int | float:
        """Tokens per image to keep."""

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """RoPE positions of the tokens that are left."""

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        check_positions(self.positions)

    def scores(self, image: ImageTokens) -> Tensor:
        """``[n]`` float32."""
        return torch.stack(list(image.attention.values())).sum(0)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep the patches with the highest score; ties go to the earlier one, and separators go first."""
        order = ranking(self.scores(image))
        return ImageChoice(order[: budget(self.keep, image.n)])


def ranking(scores: Tensor) -> Tensor:
    """``[n]`` long: tokens by falling score; those without one (NaN), which are no patches, come last."""
    return scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
