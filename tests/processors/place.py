"""Inputs of the steps for one family: folder of a checkpoint, images, and the loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import vistrim
from tests.processors.checkpoint import Checkpoint
from tests.processors.zoo import CHECKPOINTS

SIZES = {"tiny": (20, 20), "square": (336, 336), "wide": (1000, 300), "tall": (300, 1200)}
"""Width and height."""
MODES = {"gray": "L", "transparent": "RGBA"}
PICTURES = (*SIZES, *MODES)


@dataclass(frozen=True)
class Place:
    """A folder of a checkpoint, with pictures and room for results beside it.

    Attributes
    ----------
    family : str
        See ``tests.processors.zoo``.
    folder : Path
        Empty at first.
    """

    family: str
    folder: Path

    @property
    def checkpoint(self) -> Checkpoint:
        return CHECKPOINTS[self.family]

    @cached_property
    def model_path(self) -> str:
        """Where the checkpoint is saved."""
        return str(self.checkpoint.save(self.folder / "model"))

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Model and processor."""
        return vistrim.load(self.model_path)

    def picture(self, name: str) -> str:
        """A file with one of `PICTURES`."""
        path = self.folder / f"{name}.png"
        if not path.exists():
            draw(SIZES.get(name, (90, 60)), MODES.get(name, "RGB")).save(path)
        return str(path)

    def result(self, name: str) -> str:
        """Where a command may write."""
        return str(self.folder / name)


def draw(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A picture that is not the same everywhere."""
    width, height = size
    picture = Image.fromarray(np.add.outer(np.arange(height) * 3, np.arange(width) * 5).astype(np.uint8)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, width // 2, height // 3), fill="navy")
    pen.ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill="gold")
    return picture.convert(mode)
