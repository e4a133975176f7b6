"""The file ``vistrim.json`` beside a checkpoint, which names the method to run it with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim._version import __version__

NAME = "vistrim.json"
"""Name of the file."""
VERSION = 1
"""Version of the file format."""


def write_method_file(folder: str | Path, method: Mapping[str, Any]) -> None:
    """Write a method to ``vistrim.json`` in a folder.

    The file is replaced as a whole: an interrupted write leaves the previous file.

    Parameters
    ----------
    folder : str or Path
        Folder of the checkpoint. It is created if it does not exist.
    method : mapping of str to object
        Result of `Method.to_dict`.
    """
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    content = {"version": VERSION, "made_with": f"vistrim {__version__}", **method}
    write_whole(place / NAME, json.dumps(content, indent=2) + "\n")


def read_method_file(folder: str | Path) -> dict[str, Any]:
    """Read a method from ``vistrim.json`` in a folder.

    Parameters
    ----------
    folder : str or Path
        Folder of the checkpoint.

    Returns
    -------
    dict of str to object
        The mapping that was passed to `write_method_file`.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or has another version.
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
