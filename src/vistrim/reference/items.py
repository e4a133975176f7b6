"""Questions to evaluate a model on, each with its image and its right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Literal, get_args

from PIL import Image

from vistrim.reference import easy_vqa
from vistrim.reference.processing import IMAGE_SIZE
from vistrim.reference.rendering import render
from vistrim.reference.scenes import LEVELS, generate_scene
from vistrim.reference.tasks import TASKS, ask

ImageKind = Literal["own", "black", "wrong"]
IMAGE_KINDS: tuple[str, ...] = get_args(ImageKind)

TASK_NAMES = (*TASKS, easy_vqa.TASK)

#: Scenes that lie between the first scenes of two seeds.
_SEED_DISTANCE = 1_000_000


@dataclass(frozen=True)
class Item:
    """One question about one image.

    Attributes
    ----------
    id : str
        The same for the same image and question, always.
    task : str
        One of ``TASK_NAMES``.
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
    if task == easy_vqa.TASK:
        return _easy_vqa_items(split, number, seed)
    if task not in TASKS:
        raise ValueError(f"no task {task!r}: choose {', '.join(TASK_NAMES)}")
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: choose {', '.join(LEVELS)}")
    found: list[Item] = []
    index = seed * _SEED_DISTANCE
    while len(found) < number:
        scene = generate_scene(split, index, LEVELS[level])
        question = ask(task, scene, Random(f"question:{split}:{task}:{index}"))
        if question is not None:
            name = f"{split}/{level}/{index}/{task}"
            found.append(Item(name, task, question.prompt, question.answer, partial(render, scene)))
        index += 1
    return found


def with_images(own: Sequence[Item], kind: ImageKind) -> list[Item]:
    """The same questions about their own images, black ones, or each about the image of the item before it."""
    if kind == "own":
        return list(own)
    if kind == "black":
        black = partial(Image.new, "RGB", (IMAGE_SIZE, IMAGE_SIZE))
        return [replace(item, id=f"{item.id}/black", image=black) for item in own]
    before = [own[-1], *own[:-1]] if own else []
    return [replace(item, id=f"{item.id}/wrong", image=other.image) for item, other in zip(own, before, strict=True)]


def _easy_vqa_items(split: str, number: int, seed: int) -> list[Item]:
    pictures = easy_vqa.pictures(split)
    places = [(i, j) for i, picture in enumerate(pictures) for j in range(len(picture.questions))]
    Random(f"{easy_vqa.TASK}:{split}:{seed}").shuffle(places)
    return [
        Item(f"{easy_vqa.TASK}/{split}/{i}/{j}", easy_vqa.TASK, question.prompt, question.answer, pictures[i].open)
        for i, j in places[:number]
        for question in (pictures[i].questions[j],)
    ]
