"""Files of questions: JSON lines, and data sets in the format of Hugging Face's `datasets`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vistrim._utils.image_files import Encoded, Source
from vistrim.errors import InputError, MissingPackageError
from vistrim.evaluation.questions import EXAMPLE, Question, Reader


def read_questions(path: Path, *, answered: bool = True) -> list[Question]:
    """Read and validate a file of questions.

    Each row has these keys:

    * ``image``, or ``images`` for several: paths, relative to the file; or ``video``: a list of paths, the frames
    * ``prompt``: the question
    * ``answer``, or ``answers`` for several correct ones; the best of them counts
    * ``choices`` (optional): texts of the options, which are added to the prompt; the answer is a letter or a text
    * ``scorer`` (optional): a name in `vistrim.evaluation.scorers.SCORERS`, or "none" for questions without answers;
      "choice" with choices, otherwise "exact"
    * ``hint`` (optional): text that follows the question, such as "Answer with a single word."
    * ``task`` (optional): groups questions in tables; all questions of a task have the same scorer
    * ``id`` (optional): text or number

    Parameters
    ----------
    path : Path
        JSON lines in UTF-8, where empty lines are skipped; or a folder that ``datasets.Dataset.save_to_disk`` wrote,
        with columns instead of keys, and images in place of paths.
    answered : bool
        Whether every question needs an answer, except for those with the scorer "none".

    Returns
    -------
    list of Question
        In the order of the file. The id of a question depends on the contents of its images and on its line number.

    Raises
    ------
    InputError
        If the file or an image cannot be read, or a line is not a valid question; the message names the line.
    MissingPackageError
        If a data set is given, and `datasets` is not installed.
    """
    found = []
    for _, row in rows(path, answered=answered):
        if isinstance(row, InputError):
            raise row
        found.append(row)
    if not found:
        raise InputError(f"{path} has no questions: write lines such as {EXAMPLE}")
    return found


def rows(path: Path, *, answered: bool = True) -> Iterator[tuple[int, Question | InputError]]:
    """Read the rows of a file one by one, with their line numbers; see `read_questions`.

    Yields
    ------
    int
        Line number, from 1.
    Question or InputError
        The question, or what is wrong with the row.

    Raises
    ------
    InputError
        If the file cannot be read.
    MissingPackageError
        See `read_questions`.
    """
    read = Reader(answered).read
    for number, where, values, find in _data_set(path) if path.is_dir() else _lines(path):
        if isinstance(values, InputError):
            yield number, values
            continue
        try:
            yield number, read(where, number, values, find)
        except InputError as error:
            yield number, error


def _lines(path: Path) -> Iterator[tuple[int, str, Any, Any]]:
    try:
        # Not `splitlines`: a JSON string may contain other line separators.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: give a file of JSON lines") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield number, where, _object(where, line), partial(_beside, path.parent)


def _object(where: str, line: str) -> Any:
    try:
        values = json.loads(line)
    except ValueError as error:
        return InputError(f"{where} is not valid JSON ({error}): write {EXAMPLE}")
    return values if isinstance(values, dict) else InputError(f"{where} is not a JSON object: write {EXAMPLE}")


def _beside(folder: Path, key: str, place: int, value: Any) -> Source:
    if not isinstance(value, str):
        raise TypeError("no path")
    return folder / value


def _data_set(path: Path) -> Iterator[tuple[int, str, Any, Any]]:
    if importlib.util.find_spec("datasets") is None:
        raise MissingPackageError(f"the folder {path} needs datasets: run `pip install 'vistrim[data]'`")
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise InputError(f"{path} is no folder of `Dataset.save_to_disk` ({error}): give such a folder") from error
    if isinstance(found, datasets.DatasetDict):
        raise InputError(f"{path} has several splits: give the folder of one, such as {path / min(found)}")
    encoded = found.with_format(None)
    for name, feature in found.features.items():
        if isinstance(feature, datasets.Video):
            # Decoding needs more packages, and would be for nothing: a video is a list of frames here.
            encoded = encoded.cast_column(name, datasets.Video(decode=False))
        elif isinstance(feature, datasets.Image):
            encoded = encoded.cast_column(name, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            encoded = encoded.cast_column(name, datasets.List(datasets.Image(decode=False)))
    for index in range(len(encoded)):
        where = f"{path}, row {index + 1}"
        yield index + 1, where, encoded[index], partial(_stored, path, encoded, index)


def _stored(path: Path, table: Any, index: int, key: str, place: int, value: Any) -> Source:
    """An image of a table; its bytes are read again when they are needed, instead of being kept in memory."""
    if isinstance(value, Mapping):
        if value.get("bytes") is None:
            return Path(value["path"])
        return Encoded(f"{path}, row {index + 1}, {key}", partial(_content, table, index, key, place))
    return _beside(path.parent, key, place, value)


def _content(table: Any, index: int, key: str, place: int) -> bytes:
    found = table[index][key]
    return bytes((found[place] if isinstance(found, list) else found)["bytes"])
