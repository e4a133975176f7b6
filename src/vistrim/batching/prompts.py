"""Prompts of a file, with the rows that cannot be used kept apart."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from vistrim.errors import InputError
from vistrim.evaluation.question_files import rows
from vistrim.evaluation.questions import Question


@dataclass(frozen=True)
class BadRow:
    """A row that has no answer.

    Attributes
    ----------
    line : int
        Line number in the file, from 1.
    id : str or None
        The id of the row; None if the row cannot be read.
    error : str
        What is wrong.
    """

    line: int
    id: str | None
    error: str


@dataclass(frozen=True)
class Prompts:
    """The prompts of a file.

    Attributes
    ----------
    questions : dict of int to Question
        By line number. Their names are unique.
    bad : list of BadRow
        All other rows.
    """

    questions: dict[int, Question]
    bad: list[BadRow]


def read_prompts(path: Path) -> Prompts:
    """Read and validate a file of prompts, with all of its images.

    Parameters
    ----------
    path : Path
        See `vistrim.evaluation.read_questions`; answers are not needed.

    Raises
    ------
    InputError
        If the file cannot be read or has no rows.
    """
    questions, bad, lines = dict[int, Question](), list[BadRow](), dict[str, int]()
    for number, row in rows(path, answered=False):
        if isinstance(row, InputError):
            bad.append(BadRow(number, None, str(row)))
        elif (first := lines.setdefault(row.name, number)) != number:
            bad.append(BadRow(number, row.name, f"{path}, line {number}: line {first} has the id {row.name}, too"))
        else:
            questions[number] = row
    if not (questions or bad):
        raise InputError(
            f'{path} has no prompts: write lines such as {{"image": "photo.png", "prompt": "What is this?"}}'
        )
    return Prompts(questions, bad)


def fingerprint(question: Question) -> str:
    """Hash of what an answer depends on: images and prompt."""
    content = json.dumps([question.image_id, question.prompt])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
