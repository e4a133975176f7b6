"""Questions to evaluate a model on, each with its image and correct answer, and the scores of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from vistrim.prompting import image_parts

IMAGE_KINDS = ("own", "black", "wrong")


def exact_match(given: str, right: str) -> float:
    """1 for the correct answer, else 0; texts are compared after `plain`."""
    return float(plain(given) == plain(right))


def plain(text: str) -> str:
    """The text in lower case, without surrounding space and a final period."""
    return text.strip().removesuffix(".").strip().lower()


@dataclass(frozen=True)
class Task:
    """Questions of one kind.

    Attributes
    ----------
    name : str
        Name in records and tables.
    group : str
        Title of the table that reports these tasks together. Tasks of a group have similar answers.
    score : callable
        Scores a given answer against the correct one, in [0, 1].
    scored : bool
        Whether there are correct answers; otherwise, answers are only compared with those of the untouched model. All
        tasks of a group are alike in this.
    """

    name: str
    group: str = "Answers"
    score: Callable[[str, str], float] = exact_match
    scored: bool = True


@dataclass(frozen=True)
class Item:
    """One question about one image.

    Attributes
    ----------
    id : str
        Stable identifier of image and question. Items about the same image differ only after the last slash.
    task : Task
        Its task.
    prompt, answer : str
        The question and its only correct answer.
    image : callable
        Draws or reads the image.
    """

    id: str
    task: Task
    prompt: str
    answer: str
    image: Callable[[], Image.Image]

    @property
    def right(self) -> str:
        """All correct answers, as one text for records."""
        return self.answer

    def images(self) -> list[Image.Image]:
        """Draw or read all images of the prompt."""
        return [self.image()]

    def shown(self) -> list[dict[str, Any]]:
        """Parts of the prompt other than text; see `vistrim.prompting.format_conversations`."""
        return image_parts(self.images())

    @property
    def image_id(self) -> str:
        """Identifier of the image, equal for items about the same image."""
        return self.id.rpartition("/")[0]

    def score(self, given: str) -> float:
        """Score an answer, in [0, 1]."""
        return self.task.score(given, self.answer)


def with_images(own: Sequence[Item], kind: str) -> list[Item]:
    """The same questions about their own images, black ones, or wrong ones (the image of a preceding item).

    Raises
    ------
    ValueError
        If there is no such kind, or all items are about the same image.
    """
    if kind not in IMAGE_KINDS:
        raise ValueError(f"no images of kind {kind!r}: choose {', '.join(IMAGE_KINDS)}")
    if kind == "own":
        return list(own)
    if kind == "black":
        return [replace(item, id=f"{item.id}/black", image=_black(item.image)) for item in own]
    others = [_item_with_another_image(own, place) for place in range(len(own))]
    return [
        replace(item, id=f"{item.id}/about/{other.id}", image=other.image)
        for item, other in zip(own, others, strict=True)
    ]


def _black(image: Callable[[], Image.Image]) -> Callable[[], Image.Image]:
    return lambda: Image.new("RGB", image().size)


def _item_with_another_image(own: Sequence[Item], place: int) -> Item:
    """The nearest item before the one at ``place`` (cyclically) that is about another image."""
    for back in range(1, len(own)):
        if own[place - back].image_id != own[place].image_id:
            return own[place - back]
    raise ValueError("wrong images are those of other questions: use questions about two or more images")
