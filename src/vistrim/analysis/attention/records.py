"""Records of questions, one JSON line each, in a folder that an interrupted analysis goes on with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vistrim._utils.files import append_lines, claim_folder, read_lines

FILE = "samples.jsonl"


class Records:
    """By the question's id; in memory alone where there is no folder.

    Parameters
    ----------
    folder : Path or None
        Made where it is missing.
    settings : mapping
        What all records of the folder must share.

    Raises
    ------
    ResumeError
        If the folder belongs to other settings; says which.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._path = folder / FILE if folder is not None else None
        self._found: dict[str, dict[str, Any]] = {}
        if self._path is not None:
            claim_folder(self._path, settings)
            self._found = {values["item"]: values for _, values in read_lines(self._path)}

    def get(self, item: str) -> dict[str, Any] | None:
        """The record of a question, if there is one."""
        return self._found.get(item)

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Add records; once this returns, a kill no longer loses them."""
        if self._path is not None:
            append_lines(self._path, records)
        self._found.update({values["item"]: values for values in records})
