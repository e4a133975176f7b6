"""Training batches: pixels, the facts under each patch, and packed questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any

import numpy as np
import torch
from transformers import LlavaProcessor

from vistrim.reference.easy_vqa import pictures
from vistrim.reference.processing import GRID, chat
from vistrim.reference.rendering import patch_owners, render
from vistrim.reference.scenes import (
    COLORS,
    COLUMNS,
    KINDS,
    LETTERS,
    ROWS,
    SIZES,
    Difficulty,
    Scene,
    Shape,
    generate_scene,
)
from vistrim.reference.tasks import Question, ask

#: Attributes that the tower predicts for each patch, and their values. Index 0 always means background.
PATCH_FACTS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "color": COLORS,
    "size": SIZES,
    "letter": LETTERS,
    "row": ROWS,
    "column": COLUMNS,
}
IGNORED = -100
_NO_FACTS = [0] * len(PATCH_FACTS)


@dataclass
class Batch:
    """One batch of B images. V = 144 visual tokens, P = 2 tokens before them, T packed text tokens.

    Attributes
    ----------
    pixels : torch.Tensor or None
        ``(B, 3, 144, 144)`` normalized pixels. None if only ideal tokens are needed.
    facts : torch.Tensor or None
        ``(B, V, 6)`` int64, the facts of ``PATCH_FACTS`` under each patch, 0 for background; None where unknown.
    tokens : torch.Tensor
        ``(B, T)`` int64 token ids of the questions and answers, one after the other.
    labels : torch.Tensor
        ``(B, T)`` int64 target after each token; ``IGNORED`` outside answers.
    segments : torch.Tensor
        ``(B, T)`` int64, 1-based number of the question a token belongs to, 0 for padding.
    offsets : torch.Tensor
        ``(B, T)`` int64, position of a token within its question.
    subjects : torch.Tensor
        ``(B, T, 6)`` int64, facts of the shape that a prompt names last, at the prompt's last word; 0 elsewhere.
    tasks : tuple of tuple of str
        Task of every question, per image.
    """

    pixels: torch.Tensor | None
    facts: torch.Tensor | None
    tokens: torch.Tensor
    labels: torch.Tensor
    segments: torch.Tensor
    offsets: torch.Tensor
    subjects: torch.Tensor
    tasks: tuple[tuple[str, ...], ...]

    def to(self, device: torch.device) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        return Batch(**moved)


def patch_facts(scene: Scene) -> np.ndarray:
    """Facts under each patch of a scene, ``(144, 6)`` int64; 0 is background, n the n-th value of the attribute."""
    rows = [_NO_FACTS, *map(shape_facts, scene.shapes)]
    return np.asarray(rows, dtype=np.int64)[patch_owners(scene, GRID) + 1]


def shape_facts(shape: Shape) -> list[int]:
    """Facts of one shape as indices, one per attribute of ``PATCH_FACTS``, from 1."""
    return [values.index(getattr(shape, name)) + 1 for name, values in PATCH_FACTS.items()]


class Questioner:
    """Packs questions in the format of inference, with the chat template and the tokenizer of the processor."""

    def __init__(self, processor: LlavaProcessor) -> None:
        self.tokenizer = processor.tokenizer
        template = processor.apply_chat_template(chat("\0"), add_generation_prompt=True)
        self._before, self._after = template.split(processor.image_token)[1].split("\0")

    def pack(self, asked: Sequence[Sequence[Question]]) -> dict[str, Any]:
        """The fields of a :class:`Batch` that come from its questions, one inner sequence per image."""
        texts = [self._before + q.prompt + self._after for questions in asked for q in questions]
        answers = [q.answer + self.tokenizer.eos_token for questions in asked for q in questions]
        prompt_ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        answer_ids = self.tokenizer(answers, add_special_tokens=False)["input_ids"]
        pairs = iter(zip(prompt_ids, answer_ids, strict=True))
        rows = [
            [(*next(pairs), shape_facts(q.subject) if q.subject else _NO_FACTS) for q in questions]
            for questions in asked
        ]
        tasks = tuple(tuple(q.task for q in questions) for questions in asked)
        return pack(rows, self.tokenizer.pad_token_id) | {"tasks": tasks}


class SceneBatcher:
    """Builds the batch of scenes for a training step. The same step always gives the same batch.

    Parameters
    ----------
    processor : LlavaProcessor
        Its chat template and tokenizer format the questions, as in inference.
    difficulty : Difficulty
        Difficulty of the scenes.
    size : int
        Scenes per batch.
    tasks : sequence of str
        Short tasks, which each scene cycles through from a random start.
    questions : int
        Short questions per scene.
    descriptions : float
        Share of the scenes that also ask for the description.
    pixels : bool
        Whether to draw the scenes.
    """

    def __init__(
        self,
        processor: LlavaProcessor,
        difficulty: Difficulty,
        size: int,
        tasks: Sequence[str],
        questions: int,
        descriptions: float,
        pixels: bool,
    ) -> None:
        self.image_processor = processor.image_processor
        self.questioner = Questioner(processor)
        self.difficulty = difficulty
        self.size = size
        self.tasks = tasks
        self.questions = questions
        self.descriptions = descriptions
        self.pixels = pixels

    def batch(self, step: int) -> Batch:
        """Build the batch of a step, counted over the whole training so that no scene is used twice."""
        scenes = [generate_scene("train", step * self.size + i, self.difficulty) for i in range(self.size)]
        rng = Random(f"questions:{step}")
        asked = [self._questions(scene, rng) for scene in scenes]
        return Batch(
            pixels=self._pixels(scenes, rng) if self.pixels else None,
            facts=torch.from_numpy(np.stack([patch_facts(scene) for scene in scenes])),
            **self.questioner.pack(asked),
        )

    def _questions(self, scene: Scene, rng: Random) -> list[Question]:
        start = rng.randrange(len(self.tasks))
        tasks = [self.tasks[(start + i) % len(self.tasks)] for i in range(self.questions)]
        if rng.random() < self.descriptions:
            tasks.append("description")
        asked = [ask(task, scene, rng) for task in tasks]
        return [question for question in asked if question is not None]

    def _pixels(self, scenes: Sequence[Scene], rng: Random) -> torch.Tensor:
        # The processor resizes images of other sizes, so some training images are resized as well.
        images = [render(scene, rng.choice((144, 144, 216, 336))) for scene in scenes]
        return self.image_processor(images, return_tensors="pt")["pixel_values"]


class EasyVqaBatcher:
    """Builds the batch of easy-VQA training images for a training step, each with all its questions.

    Parameters
    ----------
    processor : LlavaProcessor
    size : int
        Images per batch.
    """

    def __init__(self, processor: LlavaProcessor, size: int) -> None:
        self.image_processor = processor.image_processor
        self.questioner = Questioner(processor)
        self.size = size

    def batch(self, step: int) -> Batch:
        """Build the batch of a step. The same step always gives the same batch."""
        chosen = Random(f"easy-vqa:{step}").sample(pictures("train"), self.size)
        pixels = self.image_processor([picture.open() for picture in chosen], return_tensors="pt")["pixel_values"]
        return Batch(pixels=pixels, facts=None, **self.questioner.pack([picture.questions for picture in chosen]))


def pack(rows: Sequence[Sequence[tuple[list[int], list[int], list[int]]]], pad: int) -> dict[str, Any]:
    """Pack the questions of each image into one row.

    Parameters
    ----------
    rows : sequence of sequences of (prompt ids, answer ids, facts of the subject)
        One inner sequence per image.
    pad : int
        Token id of padding.

    Returns
    -------
    dict of str to torch.Tensor
        ``tokens``, ``labels``, ``segments``, ``offsets`` and ``subjects`` of :class:`Batch`.
    """
    length = max(sum(len(p) + len(a) - 1 for p, a, _ in row) for row in rows)
    packed = {
        name: np.full((len(rows), length), fill)
        for name, fill in (("tokens", pad), ("labels", IGNORED), ("segments", 0), ("offsets", 0))
    }
    packed["subjects"] = np.zeros((len(rows), length, len(PATCH_FACTS)), dtype=np.int64)
    for i, row in enumerate(rows):
        at = 0
        for segment, (prompt, answer, subject) in enumerate(row, start=1):
            # The last answer token is only a target, never an input.
            read = prompt + answer[:-1]
            end = at + len(read)
            packed["tokens"][i, at:end] = read
            packed["labels"][i, end - len(answer) : end] = answer
            packed["segments"][i, at:end] = segment
            # The prompt ends with the start of the answer. The word before it is the last of the question.
            packed["subjects"][i, at + len(prompt) - 2] = subject
            packed["offsets"][i, at:end] = np.arange(len(read))
            at = end
    return {name: torch.from_numpy(values) for name, values in packed.items()}
