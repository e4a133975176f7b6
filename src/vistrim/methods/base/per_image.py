"""Methods that select among the visual tokens of each image before the decoder."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.schedules import budget
from vistrim.core.selection import Selection
from vistrim.errors import MethodError
from vistrim.methods.base.image_choice import ImageChoice, problem_of, spread_over
from vistrim.methods.base.image_tokens import ImageTokens, count_patches, image_tokens
from vistrim.methods.base.method import Method
from vistrim.methods.base.sample_sizes import SampleSizes, group_pictures
from vistrim.methods.base.stage_inputs import InputTokens
from vistrim.methods.base.units import Over, units, whole_image
from vistrim.methods.base.wrong_answers import refuse_answer

__all__ = ["ImageChoice", "ImageTokens", "PerImage"]


@dataclass(frozen=True)
class PerImage(Method):
    """Base class of methods that select tokens image by image.

    Subclasses implement `choose`, which is called for every image.
    """

    stages = ("input",)
    kv_cache = "small in every layer"

    counts_patches: ClassVar[bool] = False
    """Whether `choose` reads the number of patches. Only for methods with `Method.reads_vision`."""

    @property
    def over(self) -> Over:
        """Tokens that are selected together. Some methods have it as a parameter."""
        return "tile"

    @abstractmethod
    def choose(self, image: ImageTokens) -> ImageChoice:
        """Choose among the tokens of an image.

        Parameters
        ----------
        image : ImageTokens
            Visual tokens that are selected together.

        Returns
        -------
        ImageChoice
            The tokens to keep.
        """

    def count(self, n: int, grid: Grid | None, images: int) -> int:
        """Compute how many tokens `choose` keeps.

        The default is the parameter ``keep``. Override this hook if the method keeps another number.

        Parameters
        ----------
        n : int
            Number of tokens that are selected together.
        grid : tuple of int or None
            Their rows and columns. None: they form no grid.
        images : int
            Number of images by which a number of tokens per image is multiplied.

        Returns
        -------
        int
            Number of tokens kept.

        Raises
        ------
        MethodError
            If the method has no parameter ``keep``.
        """
        keep = getattr(self, "keep", None)
        if keep is None:
            raise MethodError(f"{self.name} does not tell how many tokens it keeps: override count")
        return budget(keep if isinstance(keep, float) else keep * images, n)

    def input_count(self, sample: SampleSizes) -> int:
        """Compute how many visual tokens of a prompt are kept: the sum of `count` over its images.

        Parameters
        ----------
        sample : SampleSizes
            Sizes of the prompt and its images.

        Returns
        -------
        int
            Visual tokens that enter the decoder.

        Raises
        ------
        MethodError
            If the method does not provide the number: see `count`.
        """
        kept = 0
        for group in group_pictures(len(sample.images), sample.whole, self.over):
            n = sum(sample.images[picture] for picture in group)
            grid = sample.grids[group[0]] if len(group) == 1 else None
            images = len(set(sample.whole) or sample.images) if self.over == "prompt" else 1
            kept += self.count(n, grid, images) if n else 0
        return kept

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Call `choose` for every image of every sample and combine the results.

        Parameters
        ----------
        tokens : InputTokens
            The prompt before decoder layer 0.

        Returns
        -------
        Selection or None
            The visual tokens to keep. None keeps all.

        Raises
        ------
        MethodError
            If `choose` returns no valid selection among the tokens of an image.
        """
        device = tokens.visual.device
        keep, replaced = torch.zeros_like(tokens.visual), torch.zeros_like(tokens.visual)
        nowhere = torch.full(tokens.visual.shape, -1, dtype=torch.long, device=device)
        merge_into, behind, hidden = nowhere, nowhere.clone(), None
        merges = moves = False
        counts = []
        answers: list[tuple[ImageChoice, int, Tensor]] = []
        patches = iter(count_patches(tokens, self.over) if self.counts_patches else ())
        for sample in range(len(tokens.images)):
            kept = 0
            for unit in units(tokens, sample, self.over):
                n, where = unit.n, unit.where
                whole = whole_image(tokens, sample, unit) if self.reads_words else where
                image = image_tokens(tokens, sample, unit, whole)
                choice = self.choose(replace(image, patches=next(patches, None)))
                if (problem := problem_of(choice, n, tokens.embeddings.shape[-1])) is not None:
                    refuse_answer(self, "choose", choice, problem)
                spread = spread_over(choice, where)
                answers.append((choice, n, spread.fits))
                keep[sample, where] = spread.stays
                kept += len(choice.keep)
                if spread.target is not None:
                    merges = True
                    merge_into[sample, where] = spread.target
                if spread.behind is not None:
                    moves = True
                    behind[sample, where] = spread.behind
                if choice.made is not None:
                    hidden = tokens.embeddings.clone() if hidden is None else hidden
                    made = where[choice.keep.to(device)[-len(choice.made) :].clamp(0, n - 1)]
                    hidden[sample, made.to(hidden.device)] = choice.made.to(hidden)
                    replaced[sample, made] = True
            counts.append(kept)
        _check_contents(self, answers)
        if counts == [sum(images) for images in tokens.images] and hidden is None:
            return None
        return Selection(
            keep,
            tuple(counts),
            merge_into if merges else None,
            behind if moves else None,
            renumber=self.renumbers,
            hidden=hidden,
            replaced=replaced if hidden is not None else None,
        )


def _check_contents(method: Method, answers: Sequence[tuple[ImageChoice, int, Tensor]]) -> None:
    """Refuse a choice whose indices do not fit the number of tokens, given whether they do.

    All images are checked together, so that the device is synchronized only once.
    """
    if not answers:
        return
    fits = torch.stack([each for _, _, each in answers])
    if fits.all():
        return
    choice, n, _ = answers[fits.tolist().index(False)]
    problem = f"keep has to have distinct indices from 0 to {n - 1}"
    if choice.merge_into is not None:
        problem += ", and merge_into may only merge tokens that go into tokens that stay"
    if choice.behind is not None:
        problem += ", and behind may only move tokens that stay"
    refuse_answer(method, "choose", choice, problem)
