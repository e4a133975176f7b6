"""Methods that choose among the tokens of each image before the decoder."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.schedules import budget
from vistrim.core.selection import Selection
from vistrim.errors import MethodError
from vistrim.methods.base.method import Method, refuse_answer
from vistrim.methods.base.sample_sizes import SampleSizes, group_pictures
from vistrim.methods.base.stage_inputs import InputTokens

Over = Literal["tile", "image", "prompt"]
"""Among which tokens is chosen together: those that the vision tower saw by itself (a tile of an image, a frame of a
video, or the whole image), those of an image or video, or all of a prompt."""


def check_over(over: str) -> None:
    """Refuse anything but tokens to choose among."""
    if over not in ("tile", "image", "prompt"):
        raise ValueError(f"over={over!r}: must be tile, image or prompt (among whose tokens is chosen together)")


@dataclass(frozen=True)
class ImageTokens:
    """The removable visual tokens that are chosen among together: see `PerImage.over`.

    Attributes
    ----------
    number : int
        Of the image in its sample, from 0; of several the first one's.
    n : int
        Tokens.
    grid : tuple of int or None
        Rows and columns of the visual tokens of the whole image; None: they form no grid, or are of several images.
    attention : mapping of int to Tensor
        For each vision-tower block asked for: ``[n]`` float32, see `vistrim.methods.base.stage_inputs.VisionTokens`.
    features : Tensor or None
        ``[n, width]``: the tower's output before the projector; None if the method does not read the tower.
    embeddings : Tensor or None
        ``[n, hidden]``: what enters the decoder.
    keys : mapping of int to Tensor
        For each block asked for ``[n, head_dim]`` float32, see `VisionTokens`.
    class_state : Tensor or None
        ``[width]``: the class token beside the first of them, if it is read and there is one.
    project : callable or None
        The projector, see `VisionTokens`.
    whole_image : Tensor or None
        ``[m, hidden]``: the embeddings of the image (or video) that they are of, itself if it is all of it.
    prompt : Tensor or None
        ``[tokens, hidden]``: embeddings of the sample's whole prompt, for methods that read its words.
    words : Tensor or None
        ``[tokens]`` bool: which of them are the question.
    images : int
        Images that a number of tokens per image counts for.
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

    def budget(self, keep: int | float) -> int:
        """Resolve a budget: a number of tokens per image, or a share of the tokens; at least one, at most all."""
        return budget(keep if isinstance(keep, float) else keep * self.images, self.n)


@dataclass(frozen=True)
class ImageChoice:
    """Choice among the ``n`` tokens of one image.

    Attributes
    ----------
    keep : Tensor
        ``[kept]`` long: distinct indices in ``range(n)``, at least one, in any order.
    merge_into : Tensor, optional
        ``[n]`` long: for a token that goes, the kept index that absorbs it, or -1; None: nothing is merged.
    made : Tensor, optional
        ``[last, hidden]``: what the last ones of ``keep`` become; None: all stay what they are.
    behind : Tensor, optional
        ``[n]`` long: for a kept token that leaves its place, the index behind which it goes, or -1; None: none does.
    """

    keep: Tensor
    merge_into: Tensor | None = None
    made: Tensor | None = None
    behind: Tensor | None = None


@dataclass(frozen=True)
class PerImage(Method):
    """Base class: ask `choose` for every image and put the answers together."""

    stages = ("input",)
    kv_cache = "small in every layer"

    @property
    def over(self) -> Over:
        """Among which tokens is chosen together; a field of methods in which it can be set."""
        return "tile"

    @abstractmethod
    def choose(self, image: ImageTokens) -> ImageChoice:
        """Choose among the tokens of an image."""

    def count(self, n: int, grid: Grid | None, images: int) -> int:
        """Compute how many tokens `choose` keeps; to be overridden where it is not ``keep`` of them.

        Parameters
        ----------
        n : int
            Tokens that are chosen among together.
        grid : tuple of int or None
            Their rows and columns; None if they form no grid.
        images : int
            Images that a number of tokens per image counts for.

        Returns
        -------
        int
            Tokens kept.

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
        """Add up the counts of all images."""
        kept = 0
        for group in group_pictures(len(sample.images), sample.whole, self.over):
            n = sum(sample.images[picture] for picture in group)
            grid = sample.grids[group[0]] if len(group) == 1 else None
            images = len(set(sample.whole) or sample.images) if self.over == "prompt" else 1
            kept += self.count(n, grid, images) if n else 0
        return kept

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose for every image of every sample.

        Raises
        ------
        MethodError
            If an answer is no choice among the tokens of its image.
        """
        device = tokens.visual.device
        keep, replaced = torch.zeros_like(tokens.visual), torch.zeros_like(tokens.visual)
        nowhere = torch.full(tokens.visual.shape, -1, dtype=torch.long, device=device)
        merge_into, behind, hidden = nowhere, nowhere.clone(), None
        merges = moves = False
        counts = []
        answers, right = [], []
        for sample in range(len(tokens.images)):
            kept = 0
            for unit in units(tokens, sample, self.over):
                n, where = unit.n, unit.where
                whole = _whole_image(tokens, sample, unit) if self.reads_words else where
                choice = self.choose(_image_tokens(tokens, sample, unit, whole))
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
        # All images together, so that a device is waited for once.
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


@dataclass(frozen=True)
class Unit:
    """Tokens that are chosen among together.

    Attributes
    ----------
    where : Tensor
        ``[n]`` long: their rows, in the order of the prompt.
    n : int
        How many.
    pictures : tuple of int
        Numbers of the pictures (see `InputTokens.images`) that they are of.
    images : int
        Images that a number of tokens per image counts for.
    """

    where: Tensor
    n: int
    pictures: tuple[int, ...]
    images: int


def units(tokens: InputTokens, sample: int, over: Over) -> list[Unit]:
    """The removable tokens of a sample as they are chosen among; without those that have none.

    A picture has none if it is a tile that is all padding, or an image that must stay.
    """
    sizes = tokens.images[sample]
    pictures = range(len(sizes))
    # Without a look at the device: their number is known.
    rows = (~tokens.visual[sample]).to(torch.uint8).argsort(stable=True)[: sum(sizes)]
    groups = group_pictures(len(sizes), tokens.whole[sample] if tokens.whole else (), over)
    if len(groups) > 1:
        number_of = {picture: number for number, group in enumerate(groups) for picture in group}
        unit_of = torch.tensor([number_of[picture] for picture in pictures], device=rows.device)
        rows = rows[unit_of[tokens.image_of[sample, rows]].argsort(stable=True)]
    of_groups = [sum(sizes[picture] for picture in group) for group in groups]
    images = _images(tokens, sample) if over == "prompt" else 1
    return [
        Unit(where, n, tuple(group), images)
        for where, n, group in zip(rows.split(of_groups), of_groups, groups, strict=True)
        if n
    ]


def _whole_image(tokens: InputTokens, sample: int, unit: Unit) -> Tensor:
    """Rows of all tokens of the image that a unit is of."""
    images = units(tokens, sample, "image")
    own = next((image for image in images if set(unit.pictures) < set(image.pictures)), unit)
    return own.where


def _images(tokens: InputTokens, sample: int) -> int:
    """Images and videos of a sample."""
    return len(set(tokens.whole[sample])) if tokens.whole else len(tokens.images[sample])


def _problem(choice: Any, n: int, width: int) -> str | None:
    """What is wrong with the answer for an image of ``n`` tokens, as far as that shows without its content."""
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
    """A choice by tokens ``[n]``: flags and targets as rows of the prompt, and whether its indices are right."""

    stays: Tensor
    target: Tensor | None
    behind: Tensor | None
    fits: Tensor


def _spread(choice: ImageChoice, where: Tensor) -> _Spread:
    """Bring a choice to rows; wrong indices do no harm on the way."""
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


def _image_tokens(tokens: InputTokens, sample: int, unit: Unit, whole: Tensor) -> ImageTokens:
    """What a method sees of a unit; ``whole`` are the rows of the image that it is of."""
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
