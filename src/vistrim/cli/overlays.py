"""Overlays, drawn and written after each answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim.analysis import draw_regions, regions_of
from vistrim.cli.asking import Answer
from vistrim.cli.error_lines import CommandError


@dataclass(frozen=True)
class Overlay:
    """Result of drawing an overlay.

    Attributes
    ----------
    path : Path or None
        Its file, if it was written.
    note : str
        Reason why nothing was drawn, or a note that no token was removed; empty otherwise.
    failure : CommandError or None
        Error of writing the file, to be raised after the answer is printed.
    """

    path: Path | None = None
    note: str = ""
    failure: CommandError | None = None


def save_overlay(path: Path, answer: Answer, images: Sequence[Image.Image], processor: Any) -> Overlay:
    """Draw the tokens that each stage kept and write the file. Errors are returned, so that the answer is printed."""
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
        "" if trace.samples[0].trims_prefill else "no token was removed in prefill: the overlay shows only the image",
    )
