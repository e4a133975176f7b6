"""Folders of results, checked before any work."""

import os
from pathlib import Path

from vistrim.cli.error_lines import WrongUsageError


def check_folder(out: Path) -> None:
    """Refuse a folder that cannot be created or written to.

    Raises
    ------
    WrongUsageError
        If so; the message names the file or folder that is in the way.
    """
    place = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not place.is_dir():
        raise WrongUsageError(f"--out {out}: {place} is a file: give a folder")
    if not os.access(place, os.W_OK):
        raise WrongUsageError(f"--out {out}: {place} is not writable: give another folder")
