"""Assignment of the visual tokens of a prompt to images, tiles and frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.layout import ImageShape, Picture
from vistrim.errors import UnsupportedGenerationError


@dataclass(frozen=True)
class PromptImages:
    """The images, tiles and frames of a batch of prompts.

    Attributes
    ----------
    number : Tensor
        ``[batch, tokens]`` long: for placeholders, index of the image, tile or frame in its sample. -1 for text.
    of_sample : tuple of tuple of Picture
        The images, tiles and frames of each sample: first those of images, then those of videos.
    by_modality : mapping of str to tuple
        The images or videos of each sample, for each modality.
    mixed : bool
        Whether tokens of several tiles or frames are interleaved.
    whole : tuple of tuple of int
        Index in its sample of the image or video that each image, tile or frame belongs to.
    """

    number: Tensor
    of_sample: tuple[tuple[Picture, ...], ...]
    by_modality: Mapping[str, tuple[tuple[ImageShape, ...], ...]]
    mixed: bool = False
    whole: tuple[tuple[int, ...], ...] = ()

    def count(self, visual: Tensor) -> tuple[tuple[int, ...], ...]:
        """Count the True values in ``visual`` ``[batch, tokens]`` for each image, tile or frame (synchronizes once)."""
        most = max(map(len, self.of_sample), default=0)
        samples = torch.arange(len(visual), device=visual.device)[:, None]
        numbers = (self.number.to(visual.device) + most * samples)[visual]
        counts = numbers.bincount(minlength=most * len(visual)).view(len(visual), -1).tolist()
        return tuple(tuple(row[: len(own)]) for row, own in zip(counts, self.of_sample, strict=True))


def find_images(
    placeholders: Mapping[str, Tensor], shapes: Mapping[str, Sequence[ImageShape]], device: torch.device
) -> PromptImages:
    """Assign the placeholders of a batch to its images and videos, in order (synchronizes once).

    Parameters
    ----------
    placeholders : mapping of str to Tensor
        Placeholders of each modality, ``[batch, tokens]`` bool.
    shapes : mapping of str to sequence of ImageShape
        Images or videos of all samples, for each modality. If beam search or several answers repeat each sample, those
        of the distinct samples.
    device : torch.device
        Device of the result.

    Raises
    ------
    UnsupportedGenerationError
        If the images do not match the prompts.
    """
    found = {modality: places.to(device) for modality, places in placeholders.items()}
    counts = torch.stack([places.sum(1) for places in found.values()]).tolist()
    number = torch.full_like(next(iter(found.values())), -1, dtype=torch.long)
    batch = len(number)
    of_sample: list[tuple[Picture, ...]] = [()] * batch
    whole: list[tuple[int, ...]] = [()] * batch
    of_modality: dict[str, tuple[tuple[ImageShape, ...], ...]] = {}
    mixed = False
    for (modality, places), wanted in zip(found.items(), counts, strict=True):
        images = shapes.get(modality, ())
        dealt = _assign(images, wanted, modality)
        of_modality[modality] = tuple(map(tuple, dealt))
        pieces = []
        for sample, own in enumerate(dealt):
            for image in own:
                mixed |= image.picture_of is not None
                pieces.append(image.numbers.cpu() + len(of_sample[sample]))
                of_sample[sample] += image.pictures
                number_of_image = whole[sample][-1] + 1 if whole[sample] else 0
                whole[sample] += (number_of_image,) * len(image.pictures)
        if pieces:
            number[places] = torch.cat(pieces).to(device)
    return PromptImages(number, tuple(of_sample), of_modality, mixed, tuple(whole))


def _assign(images: Sequence[ImageShape], wanted: Sequence[int], modality: str) -> list[list[ImageShape]]:
    """Assign the next images to each sample until its placeholders are filled."""
    total, given = sum(wanted), sum(image.tokens for image in images)
    if total == 0:
        return [[] for _ in wanted]
    copies, rest = divmod(total, given) if given else (0, 1)
    fits = rest == 0
    # Idefics has an entry for every prompt, even without images.
    dealt, left = [], [image for image in images if image.tokens]
    for n in wanted[:: max(copies, 1)]:
        own: list[ImageShape] = []
        while left and n > 0:
            image = left.pop(0)
            if image.tokens > n and image.pictures == (Picture(image.tokens),):
                # One tensor with the features of all prompts (Fuyu) is split among them.
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
