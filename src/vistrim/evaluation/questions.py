"""Questions from a file: one JSON object a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim._utils.image_files import read_images
from vistrim.errors import InputError, PromptError
from vistrim.evaluation.items import Item, Task
from vistrim.prompting import check_text

TASK = "data"
"""Of questions that name none."""
EXAMPLE = '{"image": "photo.png", "prompt": "What is this?", "answer": "a cat"}'


@dataclass(frozen=True)
class Question(Item):
    """A question of a user's own.

    Attributes
    ----------
    files : tuple of Path
        Its images, in the order of the prompt.
    answers : tuple of str
        All right answers; ``answer`` is the first of them, or empty.
    """

    files: tuple[Path, ...]
    answers: tuple[str, ...]

    @property
    def right(self) -> str:
        """All answers."""
        return " | ".join(self.answers)

    def images(self) -> list[Image.Image]:
        """Read the images."""
        return read_images(self.files)

    def score(self, given: str) -> float:
        """Score an answer by the right answer that is closest, in [0, 1]."""
        return max((self.task.score(given, right) for right in self.answers), default=0.0)


def read_questions(path: Path, *, answered: bool = True) -> list[Question]:
    """Read a file of questions, and check all of it.

    Each line is an object with these keys; empty lines are skipped.

    * ``image``, or ``images`` for several: paths, relative to the file
    * ``prompt``: the question
    * ``answer``, or ``answers`` for several that are all right
    * ``task`` (optional): groups questions in tables

    Parameters
    ----------
    path : Path
        JSON lines in UTF-8.
    answered : bool
        Whether every question needs an answer.

    Returns
    -------
    list of Question
        In order. The id of a question depends on its images' contents and its line.

    Raises
    ------
    InputError
        If the file or an image cannot be read, or a line is no question; names the line.
    """
    try:
        # Other line separators may stand inside of a JSON string.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: give JSON lines") from error
    found = [_question(path, number, line, answered) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"there is no question in {path}: write lines such as {EXAMPLE}")
    return found


def digest(items: Sequence[Item]) -> str:
    """Tell sets of questions apart; the ids of a user's own stand for the contents of their images."""
    content = [(item.id, item.prompt, item.right) for item in items]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def check_placeholders(items: Sequence[Item], processor: Any) -> None:
    """Refuse questions and answers that contain a placeholder for images or videos.

    Raises
    ------
    InputError
        Names the question.
    """
    for item in items:
        try:
            check_text(processor, f"{item.prompt}\n{item.right}")
        except PromptError as error:
            raise InputError(f"the question {item.id} or its answer: {error}") from error


def is_unicode(text: str) -> bool:
    """Whether a text has whole characters only: Python stands in for bytes that it cannot decode with half ones."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _question(path: Path, number: int, line: str, answered: bool) -> Question:
    where = f"{path}, line {number}"
    try:
        values: Any = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{where} is no JSON object: write {EXAMPLE}")
    images = _texts(where, values, "image", "images")
    answers = _texts(where, values, "answer", "answers")
    prompt, task = values.get("prompt"), values.get("task", TASK)
    if not images:
        raise InputError(f'{where} has no "image": give a path, or several as "images"')
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f'{where} has no "prompt": give it as text')
    if not isinstance(task, str) or not task.strip():
        raise InputError(f'{where}: "task" must be text')
    if answered and not answers:
        raise InputError(
            f'{where} has no "answer": add the right one, or use what needs none, such as calibrate\'s '
            "--objective agreement"
        )
    if not is_unicode("".join((prompt, task, *answers))):
        raise InputError(f"{where} has half a character (an escaped surrogate without its other half): mend it")
    files = tuple(path.parent / image for image in images)
    try:
        read_images(files)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    contents = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    return Question(
        id=f"{contents}/{number}",
        task=Task(task),
        prompt=prompt.strip(),
        answer=answers[0] if answers else "",
        image=partial(_read, files[0]),
        files=files,
        answers=answers,
    )


def _texts(where: str, values: Mapping[str, Any], one: str, several: str) -> tuple[str, ...]:
    """The texts under a key, or under that for several; those that are empty do not count."""
    if one in values and several in values:
        raise InputError(f'{where} has both "{one}" and "{several}": leave one out')
    given = values.get(several, [values.get(one)])
    if not isinstance(given, list):
        raise InputError(f'{where}: "{several}" must be a list of texts')
    texts = [text for text in given if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f'{where}: "{one if one in values else several}" must be text')
    return tuple(text for text in texts if text.strip())


def _read(file: Path) -> Image.Image:
    return read_images([file])[0]
