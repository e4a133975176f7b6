"""Methods that choose among the tokens of each image before the decoder."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.selection import Selection
from vistrim.methods.base import InputTokens, Method


@dataclass(frozen=True)
class ImageChoice:
    """Choice among the ``n`` tokens of one image.

    Attributes
    ----------
    keep : Tensor
        ``[kept]`` long: distinct indices in ``range(n)``.
    merge_into : Tensor, optional
        ``[n]`` long: for a token that goes, the kept index that absorbs it, or -1; None: nothing is merged.
    """

    keep: Tensor
    merge_into: Tensor | None = None


@dataclass(frozen=True)
class PerImage(Method):
    """Base class: ask `choose` for every image and put the answers together."""

    stages = ("input",)

    @abstractmethod
    def choose(self, image: int, n: int, grid: tuple[int, int]) -> ImageChoice:
        """Choose among the ``n`` tokens (``grid`` rows by columns) of the sample's image number ``image``."""

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose for every image of every sample."""
        device = tokens.visual.device
        keep = torch.zeros_like(tokens.visual)
        merge_into = torch.full(tokens.visual.shape, -1, dtype=torch.long, device=device)
        merges = False
        counts = []
        for sample, images in enumerate(tokens.images):
            rows = tokens.visual[sample].nonzero()[:, 0].split(images)
            kept = 0
            for image, (n, where) in enumerate(zip(images, rows, strict=True)):
                choice = self.choose(image, n, tokens.grid)
                keep[sample, where[choice.keep.to(device)]] = True
                kept += len(choice.keep)
                if choice.merge_into is not None:
                    merges = True
                    target = choice.merge_into.to(device)
                    merge_into[sample, where] = torch.where(target >= 0, where[target.clamp(min=0)], -1)
            counts.append(kept)
        if counts == [sum(images) for images in tokens.images]:
            return None
        return Selection(keep, tuple(counts), merge_into if merges else None)
