"""Batches of a step as plain numbers, made by worker processes; the same step always gives the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from training.reference_lm.helpers import HELPERS
from training.reference_lm.images import view_numbers
from training.reference_lm.packing import Wording, pack
from vistrim.reference.easy_vqa import pictures
from vistrim.reference.lm.rendering import PRESENT, placements
from vistrim.reference.lm.scenes import Scene, View, generate_scene
from vistrim.reference.lm.tasks import SENTENCE_TASKS, about_nothing, ask
from vistrim.reference.tasks import SHORT_TASKS, Question

#: Short tasks that compare or count, which are learned last.
HARD_TASKS = ("count", "existence", "relation")
_BLACK = View(-1, 0, 0, False)

Numbers = dict[str, np.ndarray]


class SceneStream:
    """Scenes and easy-VQA pictures for the tower, without questions."""

    def __init__(self, scenes: int, easy: int, level: str = "full", split: str = "train") -> None:
        self.scenes, self.easy, self.level, self.split = scenes, easy, level, split

    def batch(self, step: int) -> Numbers:
        scenes = [generate_scene(self.split, step * self.scenes + i, self.level) for i in range(self.scenes)]
        return {"views": _views(scenes), "placed": _placed(scenes), "easy": _easy(step, self.easy)}


class QuestionStream:
    """Images with their questions, packed: ``scenes`` rows of scenes, then ``easy`` rows of easy-VQA.

    Parameters
    ----------
    wording : Wording
    scenes, easy : int
        Rows per batch.
    length : int
        Packed tokens per row.
    tasks : sequence of str
        Short tasks and helpers that each scene goes through in turn, from a random start.
    described : float
        Share of the scenes with a description, which takes about ten times the tokens of a short question.
    words, sentences : int
        Questions per scene for one word, and for a sentence.
    nothing : float
        Share of the scenes whose objects are left out.
    levels : sequence of (step, level)
        Level of the scenes from each step on.
    split : str
    """

    def __init__(
        self,
        wording: Wording,
        scenes: int,
        easy: int,
        length: int,
        tasks: Sequence[str],
        described: float = 1.0,
        words: int = 20,
        sentences: int = 3,
        nothing: float = 0.03,
        levels: Sequence[tuple[int, str]] = ((0, "full"),),
        split: str = "train",
    ) -> None:
        self.wording, self.scenes, self.easy, self.length = wording, scenes, easy, length
        self.tasks, self.described, self.nothing = tasks, described, nothing
        self.words, self.sentences = words, sentences
        self.levels, self.split = levels, split

    def level(self, step: int) -> str:
        return [level for start, level in self.levels if start <= step][-1]

    def batch(self, step: int) -> Numbers:
        rng = Random(f"reference-lm questions:{self.split}:{step}")
        level = self.level(step)
        scenes = [generate_scene(self.split, step * self.scenes + i, level) for i in range(self.scenes)]
        asked = [self._questions(scene, rng) for scene in scenes]
        views, placed = _views(scenes), _placed(scenes)
        for i, questions in enumerate(asked):
            if rng.random() < self.nothing:
                asked[i] = [about_nothing(question) for question in questions]
                placed[i, :, PRESENT] = 0
                if rng.random() < 0.5:
                    views[i] = view_numbers(_BLACK)
        easy = _easy(step, self.easy)
        asked += [_easy_questions(number, rng) for number in easy]
        # Where a row is too short for all its questions, others go each time; the description never does.
        for questions in asked:
            rng.shuffle(questions)
            questions.sort(key=lambda question: question.task != "description")
        rows = [self.wording.questions([(q.prompt, q.answer) for q in questions]) for questions in asked]
        numbers = np.full((len(rows), max(map(len, asked))), -1)
        for i, questions in enumerate(asked):
            numbers[i, : len(questions)] = [TASK_NAMES.index(question.task) for question in questions]
        return {"views": views, "placed": placed, "easy": easy, "tasks": numbers} | pack(rows, self.length)

    def _questions(self, scene: Scene, rng: Random) -> list[Question]:
        start = rng.randrange(len(self.tasks))
        words = [_ask(self.tasks[(start + i) % len(self.tasks)], scene, rng) for i in range(self.words)]
        sentences = [ask(task, scene, rng, "sentence") for task in rng.sample(SENTENCE_TASKS, self.sentences)]
        told = [
            Question(f"{question.task}-sentence", question.prompt, question.answer)
            for question in sentences
            if question
        ]
        described = ask("description", scene, rng) if rng.random() < self.described else None
        return [question for question in (described, *words, *told) if question]


TASK_NAMES = (*SHORT_TASKS, "description", "easy-vqa", *(f"{task}-sentence" for task in SENTENCE_TASKS), *HELPERS)


def _ask(task: str, scene: Scene, rng: Random) -> Question | None:
    return HELPERS[task](scene, rng) if task in HELPERS else ask(task, scene, rng)


def _views(scenes: Sequence[Scene]) -> np.ndarray:
    return np.asarray([view_numbers(scene.view) for scene in scenes], dtype=np.int64)


def _placed(scenes: Sequence[Scene]) -> np.ndarray:
    return np.stack([placements(scene) for scene in scenes])


def _easy(step: int, number: int) -> np.ndarray:
    chosen = Random(f"reference-lm easy-vqa:{step}").sample(range(len(pictures("train"))), number) if number else []
    return np.asarray(chosen, dtype=np.int64)


def _easy_questions(number: int, rng: Random) -> list[Question]:
    """All questions about a picture, as they are or with the wanted form."""
    form = rng.choice(("", " Answer in one word."))
    return [Question(q.task, q.prompt + form, q.answer) for q in pictures("train")[number].questions]


class _Steps(Dataset):
    def __init__(self, make: Callable[[int], Numbers], start: int) -> None:
        self.make, self.start = make, start

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, step: int) -> Numbers:
        return self.make(self.start + step)


def _as_is(numbers: Numbers) -> Numbers:
    # Arrays go through a pipe; tensors would go through shared memory, of which containers have little.
    return numbers


def run(make: Callable[[int], Numbers], device: torch.device, workers: int, start: int = 0) -> Iterator[dict[str, Any]]:
    """Batches from step ``start`` on, as tensors on a device, made ahead by ``workers`` processes (0: made here)."""
    loader = DataLoader(
        _Steps(make, start),
        batch_size=None,
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    for numbers in loader:
        yield {name: torch.from_numpy(values).to(device, non_blocking=True) for name, values in numbers.items()}
