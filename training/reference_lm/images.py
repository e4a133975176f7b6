"""Images rendered on the device: scenes, and upscaled images of easy-VQA."""

from __future__ import annotations

from multiprocessing import get_context

import numpy as np
import torch
from torch.nn import functional as F

from training.reference_lm.facts import PATCH_FACTS, UNKNOWN
from vistrim.reference.easy_vqa import pictures
from vistrim.reference.lm.backgrounds import background
from vistrim.reference.lm.rendering import draw_objects
from vistrim.reference.lm.scenes import IMAGE_SIZE, PATCH_SIZE, View
from vistrim.reference.rendering import MIN_COVERAGE
from vistrim.reference.tasks import Question

#: Pixels of easy-VQA with this difference from the background belong to the shape.
_CONTRAST = 24


def view_numbers(view: View) -> list[int]:
    return [view.background, view.left, view.top, int(view.mirrored)]


def _background(place: tuple[str, int]) -> np.ndarray:
    return background(*place)


def draw_backgrounds(split: str, number: int, processes: int) -> np.ndarray:
    """The first backgrounds of a split, ``(number, 448, 448, 3)`` uint8.

    Parameters
    ----------
    split : str
    number : int
    processes : int
        Number of worker processes; 0: this process. They are forked, so call this before CUDA is initialized.
    """
    places = [(split, i) for i in range(number)]
    if not processes:
        return np.stack([_background(place) for place in places])
    with get_context("fork").Pool(processes) as pool:
        return np.stack(pool.map(_background, places, chunksize=8))


class Canvases:
    """Backgrounds of a split on one device. Scenes with other background numbers get one of these.

    Parameters
    ----------
    backgrounds : numpy.ndarray
        From :func:`draw_backgrounds`.
    device : torch.device
    """

    def __init__(self, backgrounds: np.ndarray, device: torch.device) -> None:
        black = np.zeros_like(backgrounds[:1])
        # The last one is black: index -1.
        self.bank = torch.from_numpy(np.concatenate([backgrounds, black])).to(device)
        self.number = len(backgrounds)

    def scenes(self, views: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 3, 336, 336)`` uint8 from ``(B, 4)`` views and ``(B, 9, 7)`` placements."""
        number, left, top, mirrored = views.unbind(1)
        number = torch.where(number < 0, self.number, number % self.number)
        line = torch.arange(IMAGE_SIZE, device=views.device)
        x = left[:, None] + torch.where(mirrored[:, None] > 0, IMAGE_SIZE - 1 - line, line)
        y = top[:, None] + line
        cut = self.bank[number[:, None, None], y[:, :, None], x[:, None, :]]
        return draw_objects(cut.permute(0, 3, 1, 2).contiguous(), placed)


class EasyVqa:
    """Training images of easy-VQA and the facts in their questions, on one device."""

    def __init__(self, device: torch.device) -> None:
        shown = pictures("train")
        self.bank = torch.stack([torch.from_numpy(np.array(p.open())).permute(2, 0, 1) for p in shown]).to(device)
        facts = torch.full((len(shown), len(PATCH_FACTS)), UNKNOWN)
        names = list(PATCH_FACTS)
        for row, picture in zip(facts, shown, strict=True):
            told = {word for question in picture.questions for word in _told(question)}
            for fact in ("kind", "color"):
                for value in told.intersection(PATCH_FACTS[fact]):
                    row[names.index(fact)] = PATCH_FACTS[fact].index(value) + 1
        self.facts = facts.to(device)

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 3, 336, 336)`` uint8, upscaled as by Pillow's bicubic filter."""
        small = self.bank[numbers].float()
        large = F.interpolate(small, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True)
        return large.round().clamp(0, 255).to(torch.uint8)

    def patch_facts(self, numbers: torch.Tensor) -> torch.Tensor:
        """Facts under each patch, ``(B, 576, 6)`` int64; 0 for background, ``UNKNOWN`` where no question tells."""
        small = self.bank[numbers].float()
        edge = torch.cat([small[:, :, 0], small[:, :, -1], small[:, :, :, 0], small[:, :, :, -1]], -1)
        far = (small - edge.median(-1).values[..., None, None]).abs().amax(1, keepdim=True) > _CONTRAST
        grid = IMAGE_SIZE // PATCH_SIZE
        mask = F.interpolate(far.float(), size=(IMAGE_SIZE, IMAGE_SIZE), mode="nearest")
        on_shape = (F.adaptive_avg_pool2d(mask, grid) >= MIN_COVERAGE).flatten(1)
        return torch.where(on_shape[..., None], self.facts[numbers][:, None], 0)


def _told(question: Question) -> set[str]:
    """Words of a question and its answer, if they are true of the image."""
    words = set(question.prompt.rstrip("?").split())
    denied = bool(words & {"not", "no"}) == (question.answer == "yes")
    return set() if question.answer in ("yes", "no") and denied else words | {question.answer}


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Pixels as the image processor gives them: float32, mean 0.5 and deviation 0.25."""
    return (images.float() / 255 - 0.5) / 0.25
