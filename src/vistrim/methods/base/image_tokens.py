"""What a method sees of an image before the decoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.schedules import budget
from vistrim.methods.base.stage_inputs import InputTokens
from vistrim.methods.base.units import Over, Unit, units


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


def count_patches(tokens: InputTokens, over: Over) -> list[int]:
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


def image_tokens(tokens: InputTokens, sample: int, unit: Unit, whole: Tensor) -> ImageTokens:
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
