"""Files that a kill leaves whole: text, tensors, and lines that are only ever added to."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vistrim.errors import ResumeError


def write_whole(path: Path, text: str) -> None:
    """Write a text file; a kill leaves the old one or the new one, never a part."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def save_whole(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; a kill leaves the old one or the new one, never a part."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)


def append_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Add JSON objects, one a line; once this returns, a kill no longer loses them."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(objects))
        file.flush()
        os.fsync(file.fileno())


def replace_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Put JSON objects, one a line, in the place of all that `append_lines` has written."""
    write_whole(path, _lines(objects))


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read what `append_lines` wrote, each object with its line number; a line that a kill cut short is removed.

    Raises
    ------
    ResumeError
        If a line is damaged.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    *lines, last = content.split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            values = _object(line)
            if values is None:
                raise damaged_line(path, number)
            found.append((number, values))
    # A kill while writing leaves part of a line, or all of it but its end.
    values = _object(last)
    if values is not None:
        found.append((len(lines) + 1, values))
        with path.open("ab") as file:
            file.write(b"\n")
    elif last:
        os.truncate(path, len(content) - len(last))
    return found


def damaged_line(path: Path, number: int) -> ResumeError:
    """The error for a line that is not what was written."""
    return ResumeError(f"{path}, line {number} is damaged: delete that line")


def claim_folder(data: Path, settings: Mapping[str, Any]) -> None:
    """Note in ``settings.json`` what everything in a file of results was made with, and see that it still is so.

    Parameters
    ----------
    data : Path
        The file; its folder is made where it is missing.
    settings : mapping
        Plain Python objects.

    Raises
    ------
    ResumeError
        If the folder belongs to other settings; says which.
    """
    folder, path = data.parent, data.with_name("settings.json")
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if data.exists():
            raise ResumeError(f"{folder} holds {data.name} without settings.json: give another folder")
        write_whole(path, json.dumps(settings, indent=2) + "\n")
        return
    check_folder(data, settings)


def check_folder(data: Path, settings: Mapping[str, Any]) -> None:
    """See that what is in a file of results, if there is any, was made with these settings; there may be others.

    Raises
    ------
    ResumeError
        See `claim_folder`.
    """
    folder, path = data.parent, data.with_name("settings.json")
    if not path.exists():
        return
    # JSON knows no tuples, so that what was read is compared with what would be read again.
    if differing := differences(read_object(path), json.loads(json.dumps(settings))):
        raise ResumeError(
            f"{folder} holds results with other settings ({differing}): give another folder, or delete this one"
        )


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_whole` wrote.

    Raises
    ------
    ResumeError
        If it is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ResumeError(f"{path} is damaged: give another folder, or delete this one") from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the settings that are not as they were; empty if all are."""
    return "; ".join(f"{key} {before.get(key)!r}, now {now[key]!r}" for key in now if before.get(key) != now[key])


def _lines(objects: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(values) + "\n" for values in objects)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
