"""Methods that select among the visual tokens of each image before the decoder."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.schedules import budget
from vistrim.core.selection import Selection
from vistrim.errors import MethodError
from vistrim.methods.base.method import Method, refuse_answer
from vistrim.methods.base.sample_sizes import SampleSizes, group_pictures
from vistrim.methods.base.stage_inputs import InputTokens
from vistrim.methods.base.units import Over, Unit, units, whole_image


@dataclass(frozen=True)
class ImageTokens:
    """Visual tokens that are selected together: see `PerImage.over`.

    Only tokens that may be removed are included. Attributes that the method does not request are None or empty.

    Attributes
    ----------
    number : int
        Number of the image in its sample, from 0. With several images, that of the first.
    n : int
        Number of these tokens.
    grid : tuple of int or None
        Rows and columns of the visual tokens of the image. None: they form no grid, or belong to several images.
    attention : mapping of int to Tensor
        For each requested block of the vision tower, ``[n]`` float32: see `VisionTokens`.
    features : Tensor or None
        ``[n, width]``: output of the vision tower before the projector.
    embeddings : Tensor or None
        ``[n, hidden]``: input of the decoder.
    keys : mapping of int to Tensor
        For each requested block of the vision tower, ``[n, head_dim]`` float32: see `VisionTokens`.
    class_state : Tensor or None
        ``[width]``: final class token of the image of the first token, in a tower that has one.
    project : callable or None
        The projector: see `VisionTokens`.
    whole_image : Tensor or None
        ``[m, hidden]``: embeddings of all removable tokens of the image or video that these tokens belong to.
    prompt : Tensor or None
        ``[tokens, hidden]``: embeddings of the whole prompt of the sample, for methods that read its words.
    words : Tensor or None
        ``[tokens]`` bool, True for the tokens of ``prompt`` that form the question.
    images : int
        Number of images by which a number of tokens per image is multiplied.
    patches : int or None
        Number of these tokens that are patches, for methods with `PerImage.counts_patches`. The others are separators
        between rows of tiles. None: not counted.
    """

    number: int
    n: int
    grid: Grid | None
    attention: Mapping[int, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    embeddings: Tensor | None = None
    keys: Mapping[int, Tensor] = field(default_factory=dict)
    class_state: Tensor | None = None
    project: Callable[[Tensor], Tensor] | None = None
    whole_image: Tensor | None = None
    prompt: Tensor | None = None
    words: Tensor | None = None
    images: int = 1
    patches: int | None = None

    def budget(self, keep: int | float) -> int:
        """Compute the number of tokens to keep.

        Parameters
        ----------
        keep : int or float
            Number of tokens per image (int), or share of the tokens in (0, 1] (float).

        Returns
        -------
        int
            Number of tokens, at most ``n``. A share keeps at least one token.
        """
        return budget(keep if isinstance(keep, float) else keep * self.images, self.n)


@dataclass(frozen=True)
class ImageChoice:
    """Selection among the ``n`` tokens of one image.

    Attributes
    ----------
    keep : Tensor
        ``[kept]`` long: distinct indices in ``range(n)`` of the tokens to keep, at least one, in any order.
    merge_into : Tensor, optional
        ``[n]`` long: for a removed token, the index of the kept token that absorbs it, or -1 if it is dropped. -1 for
        all other tokens. None: no token is merged.
    made : Tensor, optional
        ``[last, hidden]``: new embeddings of the last tokens of ``keep``. None: all tokens keep their embeddings.
    behind : Tensor, optional
        ``[n]`` long: for a kept token that moves, the index of the token behind which it goes. -1 for all other tokens.
        None: no token moves.
    """

    keep: Tensor
    merge_into: Tensor | None = None
    made: Tensor | None = None
    behind: Tensor | None = None


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
        answers, right = [], []
        patches = iter(_patches(tokens, self.over) if self.counts_patches else ())
        for sample in range(len(tokens.images)):
            kept = 0
            for unit in units(tokens, sample, self.over):
                n, where = unit.n, unit.where
                whole = whole_image(tokens, sample, unit) if self.reads_words else where
                image = _image_tokens(tokens, sample, unit, whole)
                choice = self.choose(replace(image, patches=next(patches, None)))
                if (problem := _problem(choice, n, tokens.embeddings.shape[-1])) is not None:
                    refuse_answer(self, "choose", choice, problem)
                spread = _spread(choice, where)
                answers.append((choice, n))
                right.append(spread.fits)
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
        # Checked for all images together, so that the device is synchronized only once.
        if right and not torch.stack(right).all():
            choice, n = answers[torch.stack(right).tolist().index(False)]
            problem = f"keep has to have distinct indices from 0 to {n - 1}, "
            problem += (
                "merge_into may only merge tokens that go into tokens that stay, and behind move tokens that stay"
            )
            refuse_answer(self, "choose", choice, problem)
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


def _problem(choice: Any, n: int, width: int) -> str | None:
    """Find an error in the result of `choose` that shows in types and shapes.

    The contents of tensors are not read, which would synchronize with the device.

    Parameters
    ----------
    choice : object
        Result of `choose`.
    n : int
        Tokens of the image.
    width : int
        Hidden size of the decoder.

    Returns
    -------
    str or None
        Description of the error. None: there is none.
    """
    if not isinstance(choice, ImageChoice):
        return "an ImageChoice is expected"
    keep, made = choice.keep, choice.made
    if not isinstance(keep, Tensor) or keep.dtype != torch.long or keep.dim() != 1:
        return "keep has to be a tensor [kept] of torch.int64"
    if not len(keep):
        return "keep has to have at least one token of the image"
    for name, part in (("merge_into", choice.merge_into), ("behind", choice.behind)):
        if part is not None and (not isinstance(part, Tensor) or part.dtype != torch.long or part.shape != (n,)):
            return f"{name} has to be a tensor [{n}] of torch.int64"
    if made is not None and not (
        isinstance(made, Tensor) and made.is_floating_point() and made.dim() == 2 and made.shape[1] == width
    ):
        return f"made has to be a float tensor [last ones of keep, {width}]"
    if made is not None and not 0 < len(made) <= len(keep):
        return f"made has to have from 1 to {len(keep)} rows, for the last ones of keep"
    return None


@dataclass(frozen=True)
class _Spread:
    """A selection by token, with row numbers of the prompt.

    Attributes
    ----------
    stays : Tensor
        ``[n]`` bool, True for kept tokens.
    target : Tensor or None
        ``[n]`` long: row that absorbs the token, or -1.
    behind : Tensor or None
        ``[n]`` long: row behind which the token goes, or -1.
    fits : Tensor
        Scalar bool: whether all indices are valid.
    """

    stays: Tensor
    target: Tensor | None
    behind: Tensor | None
    fits: Tensor


def _spread(choice: ImageChoice, where: Tensor) -> _Spread:
    """Convert a selection to row numbers of the prompt. Invalid indices are clamped and reported.

    Parameters
    ----------
    choice : ImageChoice
        The selection.
    where : Tensor
        ``[n]`` long: row of each token.

    Returns
    -------
    _Spread
        The selection by token.
    """
    last = len(where) - 1
    index = choice.keep.to(where.device)
    stays = torch.zeros_like(where, dtype=torch.bool)
    stays[index.clamp(0, last)] = True
    fits = ((index >= 0) & (index <= last)).all() & (stays.sum() == len(index))
    target = behind = None
    if choice.merge_into is not None:
        into = choice.merge_into.to(where.device)
        absorbed = (into >= 0) & (into <= last) & stays[into.clamp(0, last)] & ~stays
        target, fits = _rows(into, where), fits & ((into == -1) | absorbed).all()
    if choice.behind is not None:
        after = choice.behind.to(where.device)
        behind, fits = _rows(after, where), fits & ((after == -1) | ((after >= 0) & (after <= last) & stays)).all()
    return _Spread(stays, target, behind, fits)


def _rows(index: Tensor, where: Tensor) -> Tensor:
    return torch.where(index >= 0, where[index.clamp(0, len(where) - 1)], -1)


def _patches(tokens: InputTokens, over: Over) -> list[int]:
    """Count the patches of each unit. The device is synchronized only once.

    Parameters
    ----------
    tokens : InputTokens
        The prompt before decoder layer 0, with outputs of the vision tower.
    over : {"tile", "image", "prompt"}
        Tokens that are selected together.

    Returns
    -------
    list of int
        Number of patches of each unit of each sample.
    """
    assert tokens.vision is not None
    separator = next(iter(tokens.vision.attention.values())).isnan()
    counts = [
        (~separator[tokens.vision.source[sample, unit.where]]).sum()
        for sample in range(len(tokens.images))
        for unit in units(tokens, sample, over)
    ]
    return torch.stack(counts).tolist() if counts else []


def _image_tokens(tokens: InputTokens, sample: int, unit: Unit, whole: Tensor) -> ImageTokens:
    """Collect the inputs of `choose` for a unit.

    Parameters
    ----------
    tokens : InputTokens
        The prompt before decoder layer 0.
    sample : int
        Index of the sample in the batch.
    unit : Unit
        The unit.
    whole : Tensor
        ``[m]`` long: rows of the image that it belongs to.

    Returns
    -------
    ImageTokens
        The inputs.
    """
    where, vision = unit.where, tokens.vision
    prompt = tokens.embeddings[sample]
    found = ImageTokens(
        number=unit.pictures[0],
        n=unit.n,
        grid=tokens.grids[sample][unit.pictures[0]] if len(unit.pictures) == 1 else None,
        embeddings=prompt[where.to(prompt.device)],
        images=unit.images,
    )
    if tokens.words is not None:
        around = found.embeddings if whole is where else prompt[whole.to(prompt.device)]
        found = replace(found, whole_image=around, prompt=prompt, words=tokens.words[sample])
    if vision is None:
        return found
    source = vision.source[sample, where]
    return replace(
        found,
        attention={block: scores[source] for block, scores in vision.attention.items()},
        features=vision.features[source],
        keys={block: keys[source] for block, keys in vision.keys.items()},
        class_state=vision.class_states[source[:1]][0] if vision.class_states is not None else None,
        project=vision.project,
    )
