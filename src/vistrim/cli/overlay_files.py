"""Names of overlay files, checked before any work."""

import os
from collections.abc import Sequence
from pathlib import Path

from vistrim.cli.error_lines import WrongUsageError


def check_overlay(path: Path | None, images: Sequence[Path], total: int) -> None:
    """Refuse an overlay file that cannot be written.

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
        If it is not a .png file, would overwrite an image, or its directory does not exist or is not writable.
    """
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise WrongUsageError(f"the overlay '{path}' must be a .png file: for example --overlay kept.png")
    written = {numbered(path, number, total).resolve() for number in range(1, total + 1)}
    for image in images:
        if image.resolve() in written:
            raise WrongUsageError(f"the overlay would overwrite the image '{image}': choose another file")
    if not path.parent.is_dir():
        raise WrongUsageError(f"there is no directory '{path.parent}' for the overlay: create it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise WrongUsageError(f"the overlay '{path}' is not writable: choose another file")


def numbered(path: Path, number: int, total: int) -> Path:
    """File of one of several overlays: ``kept.png`` becomes ``kept-1.png``, ``kept-2.png``, ..."""
    return path if total == 1 else path.with_stem(f"{path.stem}-{number}")
