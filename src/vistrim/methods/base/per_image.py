"""Methods that choose among the tokens of each image before the decoder."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.selection import Selection
from vistrim.methods.base.method import Method, refuse_answer
from vistrim.methods.base.stage_inputs import InputTokens


@dataclass(frozen=True)
class ImageTokens:
    """The removable visual tokens of one image.

    Attributes
    ----------
    number : int
        Of the image in its sample, from 0.
    n : int
        Tokens.
    grid : tuple of int or None
        Rows and columns of the visual tokens of the whole image; None: they form no grid.
    attention : mapping of int to Tensor
        For each vision-tower block asked for: ``[n]`` float32, see `vistrim.methods.base.stage_inputs.VisionTokens`.
    features : Tensor or None
        ``[n, width]``: the tower's output before the projector; None if no block was asked for.
    """

    number: int
    n: int
    grid: Grid | None
    attention: Mapping[int, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


@dataclass(frozen=True)
class ImageChoice:
    """Choice among the ``n`` tokens of one image.

    Attributes
    ----------
    keep : Tensor
        ``[kept]`` long: distinct indices in ``range(n)``, at least one, in any order.
    merge_into : Tensor, optional
        ``[n]`` long: for a token that goes, the kept index that absorbs it, or -1; None: nothing is merged.
    """

    keep: Tensor
    merge_into: Tensor | None = None


@dataclass(frozen=True)
class PerImage(Method):
    """Base class: ask `choose` for every image and put the answers together."""

    stages = ("input",)
    kv_cache = "small in every layer"

    @abstractmethod
    def choose(self, image: ImageTokens) -> ImageChoice:
        """Choose among the tokens of an image."""

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose for every image of every sample.

        Raises
        ------
        MethodError
            If an answer is no choice among the tokens of its image.
        """
        device = tokens.visual.device
        keep = torch.zeros_like(tokens.visual)
        merge_into = torch.full(tokens.visual.shape, -1, dtype=torch.long, device=device)
        merges = False
        counts = []
        answers, right = [], []
        for sample, images in enumerate(tokens.images):
            rows = _rows_by_image(tokens, sample).split(images)
            kept = 0
            for number, where in enumerate(rows):
                if not len(where):
                    # A tile that is all padding, or an image that must stay.
                    continue
                choice = self.choose(_image_tokens(tokens, sample, number, where))
                if (problem := _problem(choice, len(where))) is not None:
                    refuse_answer(self, "choose", choice, problem)
                stays, target, fits = _spread(choice, where)
                answers.append((choice, len(where)))
                right.append(fits)
                keep[sample, where] = stays
                kept += len(choice.keep)
                if target is not None:
                    merges = True
                    merge_into[sample, where] = torch.where(target >= 0, where[target.clamp(min=0)], -1)
            counts.append(kept)
        # All images together, so that a device is waited for once.
        if right and not torch.stack(right).all():
            choice, n = answers[torch.stack(right).tolist().index(False)]
            problem = f"keep has to have distinct indices from 0 to {n - 1}, "
            problem += "and merge_into may only merge tokens that go into tokens that stay"
            refuse_answer(self, "choose", choice, problem)
        if counts == [sum(images) for images in tokens.images]:
            return None
        return Selection(keep, tuple(counts), merge_into if merges else None, renumber=self.renumbers)


def _problem(choice: Any, n: int) -> str | None:
    """What is wrong with the answer for an image of ``n`` tokens, as far as that shows without its content."""
    if not isinstance(choice, ImageChoice):
        return "an ImageChoice is expected"
    keep, merge_into = choice.keep, choice.merge_into
    if not isinstance(keep, Tensor) or keep.dtype != torch.long or keep.dim() != 1:
        return "keep has to be a tensor [kept] of torch.int64"
    if not len(keep):
        return "keep has to have at least one token of the image"
    if merge_into is not None and (
        not isinstance(merge_into, Tensor) or merge_into.dtype != torch.long or merge_into.shape != (n,)
    ):
        return f"merge_into has to be a tensor [{n}] of torch.int64"
    return None


def _spread(choice: ImageChoice, where: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """A choice as flags and targets ``[n]``, and whether its indices are right; wrong ones do no harm on the way."""
    last = len(where) - 1
    index = choice.keep.to(where.device)
    stays = torch.zeros_like(where, dtype=torch.bool)
    stays[index.clamp(0, last)] = True
    fits = ((index >= 0) & (index <= last)).all() & (stays.sum() == len(index))
    if choice.merge_into is None:
        return stays, None, fits
    target = choice.merge_into.to(where.device)
    into = target.clamp(0, last)
    absorbed = (target >= 0) & (target <= last) & stays[into] & ~stays
    return stays, torch.where(target >= 0, into, -1), fits & ((target == -1) | absorbed).all()


def _rows_by_image(tokens: InputTokens, sample: int) -> Tensor:
    """Rows of the removable visual tokens of a sample, image by image."""
    rows = tokens.visual[sample].nonzero()[:, 0]
    return rows[tokens.image_of[sample, rows].argsort(stable=True)]


def _image_tokens(tokens: InputTokens, sample: int, number: int, where: Tensor) -> ImageTokens:
    grid = tokens.grids[sample][number]
    if tokens.vision is None:
        return ImageTokens(number, len(where), grid)
    source = tokens.vision.source[sample, where]
    attention = {block: scores[source] for block, scores in tokens.vision.attention.items()}
    return ImageTokens(number, len(where), grid, attention, tokens.vision.features[source])
