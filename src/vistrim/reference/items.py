"""Evaluation items about the scenes and the images of easy-VQA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from vistrim.evaluation.items import Item, Task
from vistrim.reference import easy_vqa
from vistrim.reference.rendering import render
from vistrim.reference.scenes import LEVELS, generate_scene
from vistrim.reference.tasks import SHORT_TASKS, ask, description_f1

_EASY_VQA = Task(easy_vqa.TASK, "Easy-VQA")

EVALUATED = {
    **{name: Task(name, "Short answers") for name in SHORT_TASKS},
    "description": Task("description", "Description", description_f1),
    _EASY_VQA.name: _EASY_VQA,
}
"""Tasks by name, in the order of reports."""
TOGETHER = {"short": SHORT_TASKS}
"""Names for groups of tasks."""

NOTE = (
    "The reference models know only drawn shapes: accuracy on them shows that a method works as designed, not how it "
    "performs on large models."
)
"""Note printed with figures about the reference models."""

#: Distance between the first scenes of two seeds.
_SEED_DISTANCE = 1_000_000
#: A task must offer a question in at least one of this many scenes.
_SCENES_PER_QUESTION = 200


def items(task: str, split: str, level: str, number: int, seed: int = 0) -> list[Item]:
    """List questions of one task. A larger ``number`` only extends the list.

    Parameters
    ----------
    task : str
        A name in ``EVALUATED``.
    split : str
        "train", "validation" or "test"; easy-VQA has no "validation".
    level : str
        Difficulty of the scenes, a name in ``scenes.LEVELS``. easy-VQA has no levels.
    number : int
        Number of questions, one per scene. easy-VQA may have fewer.
    seed : int
        Seed of the choice.

    Returns
    -------
    list of Item
        The questions.

    Raises
    ------
    ValueError
        If there is no such task, split or level.
    MissingPackageError
        If easy-VQA is requested and not installed.
    """
    if task not in EVALUATED:
        raise ValueError(f"no task {task!r}: choose {', '.join(EVALUATED)}")
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: choose {', '.join(LEVELS)}")
    if task == easy_vqa.TASK:
        return easy_vqa_items(split, number, seed)

    def item(index: int) -> Item | None:
        scene = generate_scene(split, index, LEVELS[level])
        question = ask(task, scene, Random(f"question:{split}:{task}:{index}"))
        if question is None:
            return None
        name = f"{split}/{level}/{index}/{task}"
        return Item(name, EVALUATED[task], question.prompt, question.answer, partial(render, scene))

    return from_scenes(item, task, level, number, seed)


def from_scenes(item: Callable[[int], Item | None], task: str, level: str, number: int, seed: int) -> list[Item]:
    """List items about as many scenes as needed.

    Parameters
    ----------
    item : callable
        Returns the item about a scene, given its index, or None if the scene offers no such question.
    task, level, number, seed
        See `items`.

    Returns
    -------
    list of Item
        The items.

    Raises
    ------
    ValueError
        If hardly any scene offers such a question.
    """
    found: list[Item] = []
    start = seed * _SEED_DISTANCE
    index = start
    while len(found) < number:
        if index - start > _SCENES_PER_QUESTION * (len(found) + 1):
            raise ValueError(
                f"scenes of level {level!r} hardly offer any {task} question: choose another level or task"
            )
        made = item(index)
        if made is not None:
            found.append(made)
        index += 1
    return found


def easy_vqa_items(split: str, number: int, seed: int) -> list[Item]:
    """List questions of easy-VQA in an order that depends on the seed; see `items`."""
    pictures = easy_vqa.pictures(split)
    places = [(i, j) for i, picture in enumerate(pictures) for j in range(len(picture.questions))]
    Random(f"{easy_vqa.TASK}:{split}:{seed}").shuffle(places)
    return [
        Item(f"{easy_vqa.TASK}/{split}/{i}/{j}", _EASY_VQA, question.prompt, question.answer, pictures[i].open)
        for i, j in places[:number]
        for question in (pictures[i].questions[j],)
    ]
