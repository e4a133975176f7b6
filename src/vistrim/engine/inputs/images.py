"""Which picture each visual token of a prompt belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.layout import ImageShape, Picture
from vistrim.errors import UnsupportedGenerationError


@dataclass(frozen=True)
class PromptPictures:
    """The pictures of a batch of prompts.

    Attributes
    ----------
    number : Tensor
        ``[batch, tokens]`` long: for a placeholder the number of its picture in its sample, from 0; -1 for text.
    of_sample : tuple of tuple of Picture
        The pictures of each sample: those of images, and behind them those of videos.
    images : mapping of str to tuple
        For each modality, the images (or videos) of each sample.
    mixed : bool
        Whether tokens of several pictures stand among each other.
    """

    number: Tensor
    of_sample: tuple[tuple[Picture, ...], ...]
    images: Mapping[str, tuple[tuple[ImageShape, ...], ...]]
    mixed: bool = False

    def count(self, visual: Tensor) -> tuple[tuple[int, ...], ...]:
        """Tokens with True in ``visual`` ``[batch, tokens]`` for each picture (waits for the device once)."""
        most = max(map(len, self.of_sample), default=0)
        samples = torch.arange(len(visual), device=visual.device)[:, None]
        numbers = (self.number.to(visual.device) + most * samples)[visual]
        counts = numbers.bincount(minlength=most * len(visual)).view(len(visual), -1).tolist()
        return tuple(tuple(row[: len(own)]) for row, own in zip(counts, self.of_sample, strict=True))


def find_pictures(
    placeholders: Mapping[str, Tensor], shapes: Mapping[str, Sequence[ImageShape]], device: torch.device
) -> PromptPictures:
    """Assign the placeholders of a batch to its images and videos, in order (waits for the device once).

    Parameters
    ----------
    placeholders : mapping of str to Tensor
        For each modality ``[batch, tokens]`` bool.
    shapes : mapping of str to sequence of ImageShape
        For each modality the images or videos of all samples. Beam search and several answers repeat each sample, but
        encode its images once: then those of the different samples alone.
    device : torch.device
        Of the result.

    Raises
    ------
    UnsupportedGenerationError
        If the images do not fit the prompts.
    """
    found = {modality: places.to(device) for modality, places in placeholders.items()}
    counts = torch.stack([places.sum(1) for places in found.values()]).tolist()
    number = torch.full_like(next(iter(found.values())), -1, dtype=torch.long)
    batch = len(number)
    of_sample: list[tuple[Picture, ...]] = [()] * batch
    of_modality: dict[str, tuple[tuple[ImageShape, ...], ...]] = {}
    mixed = False
    for (modality, places), wanted in zip(found.items(), counts, strict=True):
        images = shapes.get(modality, ())
        dealt = _deal(images, wanted, modality)
        of_modality[modality] = tuple(map(tuple, dealt))
        pieces = []
        for sample, own in enumerate(dealt):
            for image in own:
                mixed |= image.picture_of is not None
                pieces.append(image.numbers.cpu() + len(of_sample[sample]))
                of_sample[sample] += image.pictures
        if pieces:
            number[places] = torch.cat(pieces).to(device)
    return PromptPictures(number, tuple(of_sample), of_modality, mixed)


def _deal(images: Sequence[ImageShape], wanted: Sequence[int], modality: str) -> list[list[ImageShape]]:
    """Give each sample the next images until its placeholders are filled."""
    total, given = sum(wanted), sum(image.tokens for image in images)
    if total == 0:
        return [[] for _ in wanted]
    copies, rest = divmod(total, given) if given else (0, 1)
    fits = rest == 0
    # Idefics has an entry for each prompt, also for those without images.
    dealt, left = [], [image for image in images if image.tokens]
    for n in wanted[:: max(copies, 1)]:
        own: list[ImageShape] = []
        while left and n > 0:
            image = left.pop(0)
            if image.tokens > n and image.pictures == (Picture(image.tokens),):
                # One tensor of all features, of which nothing else is known (Fuyu): each prompt has its part of it.
                left.insert(0, ImageShape((Picture(image.tokens - n),)))
                image = ImageShape((Picture(n),))
            own.append(image)
            n -= image.tokens
        fits &= n == 0
        dealt += [own] * copies
    if left or not fits:
        raise UnsupportedGenerationError(
            f"the prompts have {total} placeholders for {modality} features, which the {given} features do not fill "
            "sample by sample: make prompts and images with the model's processor, in one call"
        )
    return dealt
