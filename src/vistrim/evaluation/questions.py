"""A user's own questions: their validation and scores."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from vistrim._utils.image_files import Source, decode_image, read_bytes, read_images
from vistrim.errors import InputError
from vistrim.evaluation.items import Item, Task, plain
from vistrim.evaluation.scorers import NONE, SCORERS, chosen_letter
from vistrim.prompting import video_part

TASK = "data"
"""Task of questions that name none."""
UNSCORED = "Answers without a score"
"""Title of the table of tasks without a score."""
EXAMPLE = '{"image": "photo.png", "prompt": "What is this?", "answer": "a cat"}'
Find = Callable[[str, int, Any], Source]
LETTER_HINT = "Answer with the option's letter from the given choices directly."
"""Default hint of questions with choices."""


@dataclass(frozen=True)
class Question(Item):
    """A user's question.

    Attributes
    ----------
    name : str
        The id that the user gave, or the number of the line or row.
    sources : tuple of (Path or Encoded)
        Its images, in the order of the prompt, or the frames of its video.
    answers : tuple of str
        All correct answers; ``answer`` is the first of them, or empty.
    choices : tuple of str
        Texts of the options; the correct answer is a letter then.
    is_video : bool
        Whether the images are the frames of one video.
    """

    name: str
    sources: tuple[Source, ...]
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    is_video: bool = False

    @property
    def right(self) -> str:
        """All correct answers, as one text for records."""
        return " | ".join(self.answers)

    def images(self) -> list[Image.Image]:
        """Read the images."""
        return read_images(self.sources)

    def shown(self) -> list[dict[str, Any]]:
        """Parts of the prompt other than text: its images or its video."""
        if not self.is_video:
            return super().shown()
        frames = self.images()
        check_frames([frame.size for frame in frames])
        return [video_part(frames)]

    def score(self, given: str) -> float:
        """Score an answer against the closest correct answer, in [0, 1]."""
        if self.choices:
            given = chosen_letter(given, self.choices)
        return max((self.task.score(given, right) for right in self.answers), default=0.0)


class Reader:
    """Turns rows of a file into questions, and decodes each image once to validate it.

    Parameters
    ----------
    answered : bool
        Whether every question needs an answer, except for those with the scorer "none".
    """

    def __init__(self, answered: bool) -> None:
        self._answered = answered
        self._checked: dict[Source, tuple[str, tuple[int, int]]] = {}
        self._tasks: dict[str, Task] = {}

    def read(self, where: str, number: int, values: Mapping[str, Any], find: Find) -> Question:
        """Validate a row.

        Parameters
        ----------
        where : str
            File and line, for messages.
        number : int
            Number of the line or row.
        values : mapping
            The row; see `vistrim.evaluation.question_files.read_questions`.
        find : callable
            Returns the image of a key ("image", "images" or "video"), place and value; raises TypeError if it is none.

        Raises
        ------
        InputError
            If it is not a valid question; the message begins with ``where``.
        """
        try:
            return self._question(number, values, find)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def _question(self, number: int, values: Mapping[str, Any], find: Find) -> Question:
        is_video, sources = _sources(values, find)
        prompt, task, hint = values.get("prompt"), values.get("task") or TASK, values.get("hint")
        answers, choices = _answers(values), _choices(values)
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError('there is no "prompt": give it as text')
        for key, value in (("task", task), ("hint", hint)):
            if value is not None and (not isinstance(value, str) or (key == "task" and not value.strip())):
                raise InputError(f'"{key}" must be text')
        task = self._task(task, _scorer(values, choices))
        if task.scored and self._answered and not answers:
            raise InputError('there is no "answer": add the correct one, or write "scorer": "none" if there is none')
        if not is_unicode("".join((prompt, task.name, hint or "", *answers, *choices))):
            raise InputError("there is a lone surrogate (half of an escaped character): write the whole character")
        checked = [self._check(source) for source in sources]
        if is_video:
            check_frames([size for _, size in checked])
        hashes = [*(["video"] if is_video else []), *(content for content, _ in checked)]
        contents = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
        right = tuple(_letter(answer, choices) for answer in answers) if choices else answers
        return Question(
            id=f"{contents}/{number}",
            task=task,
            prompt=_written(prompt, choices, hint),
            answer=right[0] if right else "",
            image=partial(_read, sources[0]),
            name=_name(values, number),
            sources=sources,
            answers=right,
            choices=choices,
            is_video=is_video,
        )

    def _task(self, name: str, scorer: str) -> Task:
        wanted = Task(name, UNSCORED, scored=False) if scorer == NONE else Task(name, score=SCORERS[scorer])
        if self._tasks.setdefault(name, wanted) != wanted:
            raise InputError(f'the task "{name}" has another scorer than before: give the row another "task"')
        return wanted

    def _check(self, source: Source) -> tuple[str, tuple[int, int]]:
        """Hash and size of an image, which is decoded once to validate it."""
        if source not in self._checked:
            content = read_bytes(source)
            size = decode_image(content, str(source)).size
            self._checked[source] = hashlib.sha256(content).hexdigest(), size
        return self._checked[source]


def digest(items: Sequence[Item]) -> str:
    """Hash of a set of questions; ids of a user's questions depend on the contents of their images."""
    content = [(item.id, item.prompt, item.right) for item in items]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def check_frames(sizes: Sequence[tuple[int, int]]) -> None:
    """Check that all frames of a video have the same size.

    Raises
    ------
    InputError
        If they do not.
    """
    if other := [(number, size) for number, size in enumerate(sizes, 1) if size != sizes[0]]:
        (width, height), (number, (own_width, own_height)) = sizes[0], other[0]
        raise InputError(
            f"frame {number} of the video has {own_width} x {own_height} pixels, and frame 1 has {width} x {height}: "
            "scale all frames to one size"
        )


def is_video(item: Item) -> bool:
    """Whether the images of an item are the frames of a video."""
    return isinstance(item, Question) and item.is_video


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, by which Python represents bytes that it cannot decode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _sources(values: Mapping[str, Any], find: Find) -> tuple[bool, tuple[Source, ...]]:
    """Whether a row has a video, and its frames or images."""
    key, given = "images" if values.get("images") is not None else "image", _several(values, "image", "images")
    frames = values.get("video")
    if frames is not None:
        if given:
            raise InputError(f'there is both "{key}" and "video": leave one out')
        if not isinstance(frames, list):
            raise InputError('"video" must be a list of image files, its frames: extract them, such as with ffmpeg')
        key, given = "video", frames
    if not given:
        raise InputError('there is no "image": give a path, several as "images", or the frames of a "video"')
    try:
        return frames is not None, tuple(find(key, place, value) for place, value in enumerate(given))
    except TypeError as error:
        raise InputError(f'"{key}" must be text') from error


def _answers(values: Mapping[str, Any]) -> tuple[str, ...]:
    given = _several(values, "answer", "answers")
    if not all(isinstance(answer, str) for answer in given):
        raise InputError(f'"{"answers" if values.get("answers") is not None else "answer"}" must be text')
    return tuple(answer for answer in given if answer.strip())


def _choices(values: Mapping[str, Any]) -> tuple[str, ...]:
    given = values.get("choices")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(choice, str) and choice.strip() for choice in given):
        raise InputError('"choices" must be a list of texts')
    if not 2 <= len(given) <= len(string.ascii_uppercase):
        raise InputError(f'"choices" must be 2 to {len(string.ascii_uppercase)} texts')
    return tuple(choice.strip() for choice in given)


def _scorer(values: Mapping[str, Any], choices: Sequence[str]) -> str:
    name = values.get("scorer") or ("choice" if choices else "exact")
    if name not in (*SCORERS, NONE):
        raise InputError(f'there is no "scorer" {name!r}: choose {", ".join((*SCORERS, NONE))}')
    if name == "choice" and not choices:
        raise InputError('the scorer "choice" needs "choices": list the texts of the options')
    return str(name)


def _letter(answer: str, choices: Sequence[str]) -> str:
    """Letter of the correct choice, given as a letter or as its text."""
    letters = string.ascii_uppercase[: len(choices)]
    named = [letter for letter, choice in zip(letters, choices, strict=True) if plain(choice) == plain(answer)]
    if named or answer.strip() in set(letters):
        return named[0] if named else answer.strip()
    raise InputError(f'the answer "{answer}" is none of the "choices": give its letter or its text')


def _written(prompt: str, choices: Sequence[str], hint: str | None) -> str:
    """The question, its choices and the hint on the form of the answer, in lines."""
    options = [f"{letter}. {choice}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False)]
    hint = LETTER_HINT if hint is None and choices else (hint or "").strip()
    return "\n".join([prompt.strip(), *options, *([hint] if hint else [])])


def _name(values: Mapping[str, Any], number: int) -> str:
    given = values.get("id", number)
    if isinstance(given, bool) or not isinstance(given, (str, int)) or not str(given).strip():
        raise InputError('"id" must be text or a whole number')
    return str(given)


def _several(values: Mapping[str, Any], one: str, several: str) -> list[Any]:
    """The values under a key, or under the key for several."""
    if values.get(one) is not None and values.get(several) is not None:
        raise InputError(f'there is both "{one}" and "{several}": leave one out')
    given = values[several] if values.get(several) is not None else [values.get(one)]
    if not isinstance(given, list):
        raise InputError(f'"{several}" must be a list of texts')
    return [value for value in given if value is not None]


def _read(source: Source) -> Image.Image:
    return read_images([source])[0]
