"""Questions to evaluate a model on, each with its image and its right answer, and how answers are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

IMAGE_KINDS = ("own", "black", "wrong")


def exact_match(given: str, right: str) -> float:
    """1 for the right answer, else 0; what `plain` takes away makes no difference."""
    return float(plain(given) == plain(right))


def plain(text: str) -> str:
    """The text in lower case, without surrounding space and a final full stop."""
    return text.strip().removesuffix(".").strip().lower()


@dataclass(frozen=True)
class Task:
    """Questions of one kind.

    Attributes
    ----------
    name : str
        In records and tables.
    group : str
        Title of the table of the tasks that are reported together: their answers are alike, and so is what trimming
        does to them.
    score : callable
        Scores a given answer against the right one, in [0, 1].
    """

    name: str
    group: str = "Answers"
    score: Callable[[str, str], float] = exact_match


@dataclass(frozen=True)
class Item:
    """One question about one image.

    Attributes
    ----------
    id : str
        The same for the same image and question, always; those about one image differ behind the last slash only.
    task : Task
        Of which kind it is.
    prompt, answer : str
        The question and its only right answer.
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
        """All that is right, as one text for records."""
        return self.answer

    def images(self) -> list[Image.Image]:
        """Draw or read all images of the prompt."""
        return [self.image()]

    @property
    def picture(self) -> str:
        """The same for items about the same image."""
        return self.id.rpartition("/")[0]

    def score(self, given: str) -> float:
        """Score an answer, in [0, 1]."""
        return self.task.score(given, self.answer)


def with_images(own: Sequence[Item], kind: str) -> list[Item]:
    """The same questions about their own images, black ones, or wrong ones: each the image of an item before it.

    Raises
    ------
    ValueError
        If there is no such kind, or no wrong image to be had.
    """
    if kind not in IMAGE_KINDS:
        raise ValueError(f"no images {kind!r}: choose {', '.join(IMAGE_KINDS)}")
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
    """The nearest item in front of the one at ``place`` (going round) that is about another image."""
    for back in range(1, len(own)):
        if own[place - back].picture != own[place].picture:
            return own[place - back]
    raise ValueError("wrong images are those of other questions: ask at least two")
