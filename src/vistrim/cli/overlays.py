"""Overlay files: checked before any work, written after each answer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim.analysis import draw_regions, regions_of
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


@dataclass(frozen=True)
class Overlay:
    """What became of an overlay.

    Attributes
    ----------
    path : Path or None
        Its file, if it was written.
    note : str
        Why nothing was drawn, or that nothing was dropped; empty if there is nothing to say.
    failure : CommandError or None
        Why the file could not be written: to be raised once the answer has been printed.
    """

    path: Path | None = None
    note: str = ""
    failure: CommandError | None = None


def save_overlay(path: Path, answer: Answer, images: Sequence[Image.Image], processor: Any) -> Overlay:
    """Draw what each stage kept of the answer's images and write it; nothing is raised, as the answer is there."""
    trace = answer.report.trace
    assert trace is not None
    try:
        regions = regions_of(processor, answer.inputs, images, trace)
    # Processors are the checkpoint's own and fail in many ways.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Overlay(note=f"no overlay can be drawn for this model ({reason})")
    try:
        draw_regions(trace, regions).save(path)
    except OSError as error:
        reason = f"the overlay '{path}' could not be written ({error.strerror}): choose another file"
        return Overlay(failure=CommandError(reason))
    return Overlay(
        path,
        "" if trace.samples[0].trims_prefill else "nothing was dropped in prefill: the overlay shows the image alone",
    )
