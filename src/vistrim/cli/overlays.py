"""Overlay files: checked before any work, written after each answer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim.analysis import draw_report, image_as_seen
from vistrim.cli.asking import Answer
from vistrim.cli.error_lines import CommandError, WrongUsageError


def check_overlay(path: Path | None, images: Sequence[Path], total: int) -> None:
    """Refuse a file that could not be written.

    Parameters
    ----------
    path : Path or None
        The file.
    images : sequence of Path
        Files that it must not overwrite.
    total : int
        Number of prompts.

    Raises
    ------
    WrongUsageError
        If it is no .png file, would overwrite an image, or its directory does not exist or may not be written to.
    """
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise WrongUsageError(f"the overlay '{path}' must be a .png file: write --overlay kept.png, for example")
    written = {numbered(path, number, total).resolve() for number in range(1, total + 1)}
    for image in images:
        if image.resolve() in written:
            raise WrongUsageError(f"the overlay would overwrite the image '{image}': choose another file")
    if not path.parent.is_dir():
        raise WrongUsageError(f"there is no directory '{path.parent}' for the overlay: create it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise WrongUsageError(f"the overlay '{path}' cannot be written: choose another file")


def numbered(path: Path, number: int, total: int) -> Path:
    """File of one of several overlays: ``kept.png`` becomes ``kept-1.png``, ``kept-2.png``, ..."""
    return path if total == 1 else path.with_stem(f"{path.stem}-{number}")


def save_overlay(path: Path, answer: Answer, images: Sequence[Image.Image], processor: Any) -> None:
    """Draw what each stage kept of the answer's images and write it.

    They are drawn as the model saw them, where each has a row of pixels of its own; otherwise as they were given.

    Raises
    ------
    CommandError
        If the model's images are not one grid of tokens each, or the file cannot be written.
    """
    pixels = answer.inputs["pixel_values"]
    try:
        if pixels.dim() == 4 and len(pixels) == len(answer.report.image_grids[0]):
            images = [image_as_seen(image, processor.image_processor) for image in pixels]
        picture = draw_report(answer.report, images)
        picture.save(path)
    except ValueError as error:
        raise CommandError(f"no overlay can be drawn for this model ({error}): leave --overlay away") from error
    except OSError as error:
        raise CommandError(f"the overlay '{path}' could not be written ({error.strerror}): choose another") from error
