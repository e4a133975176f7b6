"""``vistrim.json``: the method that a checkpoint is meant to run with, in a file beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim._version import __version__

NAME = "vistrim.json"
VERSION = 1
"""Of the file's format."""


def write_method_file(folder: str | Path, method: Mapping[str, Any]) -> None:
    """Write what `Method.to_dict` gives into a folder, which is made where it is missing; a kill leaves no part."""
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    content = {"version": VERSION, "made_with": f"vistrim {__version__}", **method}
    write_whole(place / NAME, json.dumps(content, indent=2) + "\n")


def read_method_file(folder: str | Path) -> dict[str, Any]:
    """Read what `write_method_file` was given.

    Raises
    ------
    ValueError
        If there is no such file, or it is damaged or of another version; with the fix.
    """
    path = Path(folder).expanduser() / NAME
    again = "write it with method.save(folder)"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the folder, or {again}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no method's file, or is damaged ({error}): {again}") from error
    if not isinstance(content, dict) or "version" not in content:
        raise ValueError(f"{path} is no method's file: {again}")
    if (version := content.pop("version")) != VERSION:
        raise ValueError(
            f"{path} has version {version!r}, and this vistrim reads version {VERSION}: upgrade vistrim, or {again}"
        )
    content.pop("made_with", None)
    return content
