"""Evaluation questions for ``reference-lm``, each with its image and its correct answer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from vistrim.evaluation.items import Item, Task
from vistrim.reference import easy_vqa
from vistrim.reference.items import EVALUATED as DRAWN
from vistrim.reference.items import easy_vqa_items, from_scenes
from vistrim.reference.lm.rendering import render
from vistrim.reference.lm.scenes import LEVELS, generate_scene
from vistrim.reference.lm.tasks import SENTENCE_TASKS, Form, ask
from vistrim.reference.tasks import SHORT_TASKS, f1

_SENTENCE = "-sentence"
#: Tasks whose answers are sentences, named after the tasks that ask for the same in one word.
SENTENCES = tuple(f"{task}{_SENTENCE}" for task in SENTENCE_TASKS)
EVALUATED = {
    **{name: DRAWN[name] for name in SHORT_TASKS},
    **{name: Task(name, "Sentences") for name in SENTENCES},
    **{name: DRAWN[name] for name in ("description", easy_vqa.TASK)},
}
"""Tasks by name, in the order of reports."""
TOGETHER = {"short": SHORT_TASKS, "sentence": SENTENCES}
"""Names for groups of tasks."""

#: Function words of a sentence, which carry no information.
_EMPTY = {"a", "an", "and", "are", "at", "in", "is", "it", "on", "shape", "shapes", "the", "there", "with"}


@dataclass(frozen=True)
class SentenceItem(Item):
    """A question that is answered in a sentence. Only words that are not in the question are scored."""

    def score(self, given: str) -> float:
        """Compute the F1 score of the words that are not in the prompt, in [0, 1]."""
        known = {*_words(self.prompt), *_EMPTY}
        told, right = (Counter(word for word in _words(text) if word not in known) for text in (given, self.answer))
        return f1(told, right)


def items(task: str, split: str, level: str, number: int, seed: int = 0) -> list[Item]:
    """List questions of one task as in `vistrim.reference.items.items`. ``task`` is a name in ``EVALUATED``.

    Raises
    ------
    ValueError
        If there is no such task, split or level.
    MissingPackageError
        If easy-VQA is requested and not installed. The photographs in the backgrounds are read with the images.
    """
    if task not in EVALUATED:
        raise ValueError(f"no task {task!r}: choose {', '.join(EVALUATED)}")
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: choose {', '.join(LEVELS)}")
    if task == easy_vqa.TASK:
        return [
            replace(item, prompt=f"{item.prompt} Answer in one word.") for item in easy_vqa_items(split, number, seed)
        ]
    form: Form = "sentence" if task in SENTENCES else "word"
    kind = SentenceItem if task in SENTENCES else Item

    def item(index: int) -> Item | None:
        scene = generate_scene(split, index, level)
        rng = Random(f"reference-lm question:{split}:{task}:{index}")
        question = ask(task.removesuffix(_SENTENCE), scene, rng, form)
        if question is None:
            return None
        name = f"{split}/{level}/{index}/{task}"
        return kind(name, EVALUATED[task], question.prompt, question.answer, partial(render, scene))

    return from_scenes(item, task, level, number, seed)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
