"""Questions to evaluate ``reference-lm`` on, each with its image and its right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from PIL import Image

from vistrim.reference import easy_vqa
from vistrim.reference.items import Item, easy_vqa_items, from_scenes
from vistrim.reference.lm.rendering import render
from vistrim.reference.lm.scenes import LEVELS, generate_scene
from vistrim.reference.lm.tasks import SENTENCE_TASKS, Form, ask
from vistrim.reference.tasks import SHORT_TASKS, Question

_SENTENCE = "-sentence"
#: Tasks whose answers are sentences, named after those that ask the same in a word.
SENTENCES = tuple(f"{task}{_SENTENCE}" for task in SENTENCE_TASKS)
TASK_NAMES = (*SHORT_TASKS, *SENTENCES, "description", easy_vqa.TASK)
#: Names of several tasks together.
TOGETHER = {"short": SHORT_TASKS, "sentence": SENTENCES}


def items(task: str, split: str, level: str, number: int, seed: int = 0) -> list[Item]:
    """Questions of one task, as `vistrim.reference.items.items` gives them; ``task`` is one of ``TASK_NAMES``.

    Raises
    ------
    ValueError
        If there is no such task, split or level.
    MissingPackageError
        If the photographs behind the scenes, or easy-VQA, are asked for and not installed.
    """
    if task not in TASK_NAMES:
        raise ValueError(f"no task {task!r}: choose {', '.join(TASK_NAMES)}")
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: choose {', '.join(LEVELS)}")
    if task == easy_vqa.TASK:
        return [
            replace(item, prompt=f"{item.prompt} Answer in one word.") for item in easy_vqa_items(split, number, seed)
        ]
    form: Form = "sentence" if task.endswith(_SENTENCE) else "word"

    def look(index: int) -> tuple[Question | None, Callable[[], Image.Image]]:
        scene = generate_scene(split, index, level)
        question = ask(
            task.removesuffix(_SENTENCE), scene, Random(f"reference-lm question:{split}:{task}:{index}"), form
        )
        return question, partial(render, scene)

    return from_scenes(look, task, split, level, number, seed)
