"""Questions to evaluate a model on, each with its image and its right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from PIL import Image

from vistrim.reference import easy_vqa
from vistrim.reference.processing import IMAGE_SIZE
from vistrim.reference.rendering import render
from vistrim.reference.scenes import LEVELS, generate_scene
from vistrim.reference.tasks import SHORT_TASKS, TASKS, Question, ask

IMAGE_KINDS = ("own", "black", "wrong")

TASK_NAMES = (*TASKS, easy_vqa.TASK)
#: Names of several tasks together.
TOGETHER = {"short": SHORT_TASKS}

#: Scenes that lie between the first scenes of two seeds.
_SEED_DISTANCE = 1_000_000
#: A task that finds a question in fewer scenes than one in so many finds none.
_SCENES_PER_QUESTION = 200


@dataclass(frozen=True)
class Item:
    """One question about one image.

    Attributes
    ----------
    id : str
        The same for the same image and question, always.
    task : str
        One of its suite's names.
    prompt, answer : str
        The question and its only right answer.
    image : callable
        Draws or reads the image.
    """

    id: str
    task: str
    prompt: str
    answer: str
    image: Callable[[], Image.Image]

    @property
    def picture(self) -> str:
        """The same for items about the same image."""
        return self.id.rpartition("/")[0]


def items(task: str, split: str, level: str, number: int, seed: int = 0) -> list[Item]:
    """Questions of one task; asking for more of them only adds to the list.

    Parameters
    ----------
    task : str
        One of ``TASK_NAMES``.
    split : str
        "train", "validation" or "test"; easy-VQA has no "validation".
    level : str
        Difficulty of the scenes, a name in ``scenes.LEVELS``; easy-VQA has none.
    number : int
        Questions, one per scene. Of easy-VQA there may be fewer in all.
    seed : int
        Which ones.

    Raises
    ------
    ValueError
        If there is no such task, split or level.
    MissingPackageError
        If easy-VQA is asked for and not installed.
    """
    if task not in TASK_NAMES:
        raise ValueError(f"no task {task!r}: choose {', '.join(TASK_NAMES)}")
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: choose {', '.join(LEVELS)}")
    if task == easy_vqa.TASK:
        return easy_vqa_items(split, number, seed)

    def look(index: int) -> tuple[Question | None, Callable[[], Image.Image]]:
        scene = generate_scene(split, index, LEVELS[level])
        return ask(task, scene, Random(f"question:{split}:{task}:{index}")), partial(render, scene)

    return from_scenes(look, task, split, level, number, seed)


def from_scenes(
    look: Callable[[int], tuple[Question | None, Callable[[], Image.Image]]],
    task: str,
    split: str,
    level: str,
    number: int,
    seed: int,
) -> list[Item]:
    """Items about as many scenes as it takes.

    Parameters
    ----------
    look : callable
        Given a scene's number: a question about it, if it offers one, and what draws it.
    task, split, level, number, seed
        See `items`.

    Raises
    ------
    ValueError
        If hardly any scene offers such a question.
    """
    found: list[Item] = []
    index = seed * _SEED_DISTANCE
    while len(found) < number:
        if index - seed * _SEED_DISTANCE > _SCENES_PER_QUESTION * (len(found) + 1):
            raise ValueError(f"scenes of level {level!r} hardly offer any {task} question: take another level or task")
        question, image = look(index)
        if question is not None:
            found.append(Item(f"{split}/{level}/{index}/{task}", task, question.prompt, question.answer, image))
        index += 1
    return found


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
        black = partial(Image.new, "RGB", (IMAGE_SIZE, IMAGE_SIZE))
        return [replace(item, id=f"{item.id}/black", image=black) for item in own]
    others = [_item_with_another_image(own, place) for place in range(len(own))]
    return [
        replace(item, id=f"{item.id}/about/{other.id}", image=other.image)
        for item, other in zip(own, others, strict=True)
    ]


def _item_with_another_image(own: Sequence[Item], place: int) -> Item:
    """The nearest item in front of the one at ``place`` (going round) that is about another image."""
    for back in range(1, len(own)):
        if own[place - back].picture != own[place].picture:
            return own[place - back]
    raise ValueError("wrong images are those of other questions: ask at least two")


def easy_vqa_items(split: str, number: int, seed: int) -> list[Item]:
    """Questions of easy-VQA, in an order of their own for each seed; see `items`."""
    pictures = easy_vqa.pictures(split)
    places = [(i, j) for i, picture in enumerate(pictures) for j in range(len(picture.questions))]
    Random(f"{easy_vqa.TASK}:{split}:{seed}").shuffle(places)
    return [
        Item(f"{easy_vqa.TASK}/{split}/{i}/{j}", easy_vqa.TASK, question.prompt, question.answer, pictures[i].open)
        for i, j in places[:number]
        for question in (pictures[i].questions[j],)
    ]
