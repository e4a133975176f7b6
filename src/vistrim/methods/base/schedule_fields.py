"""Fields of a schedule file, with errors about files that are none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
"""Version of the file formats."""


def read_fields(path: Path, kinds: Mapping[str, type], command: str, method: str | None = None) -> dict[str, Any]:
    """Read the fields of a schedule file.

    Parameters
    ----------
    path : Path
        The file.
    kinds : mapping of str to type
        Type of each field. A file that was written by hand may omit ``made_with`` and ``vistrim``.
    command : str
        Command that writes such files.
    method : str, optional
        Method that the schedule has to be for. None: any.

    Returns
    -------
    dict of str to object
        All fields of ``kinds``.

    Raises
    ------
    ValueError
        If the file cannot be read, is not a schedule of this format, belongs to another method, or has missing,
        unknown or wrong fields. The message names the fix.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise ValueError(f"{path} is no schedule, or is damaged ({error}): make it again") from error
    if not isinstance(values, dict) or "format" not in values:
        raise ValueError(f"{path} is no schedule: give a file that `{command}` wrote")
    if values.pop("format") != FORMAT:
        raise ValueError(f"{path} is a schedule of another format than {FORMAT}: make it again with this version")
    other = values.get("method")
    if method is not None and isinstance(other, str) and other != method:
        raise ValueError(
            f"{path} is a schedule for {other}: use it with --method {other}, or make one with `{command}`"
        )
    values = {"made_with": {}, "vistrim": "", **values}
    wrong = [name for name, kind in kinds.items() if type(values.get(name)) is not kind]
    if wrong or values.keys() != kinds.keys():
        odd = ", ".join(wrong or sorted(values.keys() - kinds.keys()))
        raise ValueError(f"{path} is damaged ({odd}): make it again")
    return values
