"""Evaluation of a reference model: questions of a split answered by plain greedy ``model.generate``.

``python -m vistrim.reference.evaluation WEIGHTS`` prints the mean score of every task as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Literal

import torch
import typer
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from vistrim.reference.processing import chat
from vistrim.reference.rendering import render
from vistrim.reference.scenes import LEVELS, Difficulty, Scene, generate_scene
from vistrim.reference.tasks import TASKS, Question, ask

ImageKind = Literal["own", "black", "wrong"]


@dataclass(frozen=True)
class Item:
    """One question about one scene of a split."""

    scene: Scene
    question: Question


def items(split: str, task: str, number: int, difficulty: Difficulty) -> list[Item]:
    """The first ``number`` scenes of a split that offer a question of the task, each with that question."""
    found: list[Item] = []
    index = 0
    while len(found) < number:
        scene = generate_scene(split, index, difficulty)
        question = ask(task, scene, Random(f"question:{split}:{task}:{index}"))
        if question is not None:
            found.append(Item(scene, question))
        index += 1
    return found


def pictures(questions: Sequence[Item], kind: ImageKind = "own") -> list[Image.Image]:
    """The images of some items: their own, black ones, or each the image of the item before (the wrong ones)."""
    if kind == "black":
        return [Image.new("RGB", (144, 144))] * len(questions)
    own = [render(item.scene) for item in questions]
    return own[-1:] + own[:-1] if kind == "wrong" else own


@torch.no_grad()
def answer(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    max_new_tokens: int = 160,
    batch_size: int = 32,
) -> list[str]:
    """Greedy answers, one image and one prompt each, without special tokens."""
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        texts = [processor.apply_chat_template(chat(p), add_generation_prompt=True) for p in prompts[part]]
        inputs = processor(images=list(images[part]), text=texts, padding=True, return_tensors="pt").to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        answers += processor.batch_decode(new, skip_special_tokens=True)
    return answers


def score(task: str, given: str, right: str) -> float:
    """1 or 0 for a short answer; for a description the F1 of its object facts."""
    return facts_f1(given, right) if task == "description" else float(given.strip() == right)


def facts_f1(given: str, right: str) -> float:
    """F1 over object facts: (area, size), (area, colour), (area, kind) and (area, letter) of every shape."""
    given_facts, right_facts = _facts(given), _facts(right)
    common = sum((given_facts & right_facts).values())
    total = sum(given_facts.values()) + sum(right_facts.values())
    return 2 * common / total if total else 0.0


def evaluate(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    split: str,
    difficulty: Difficulty,
    number: int,
    tasks: Sequence[str] = tuple(TASKS),
    images: ImageKind = "own",
) -> dict[str, float]:
    """Mean score per task over ``number`` questions each."""
    asked = [item for task in tasks for item in items(split, task, number, difficulty)]
    given = answer(model, processor, pictures(asked, images), [item.question.prompt for item in asked])
    results: dict[str, list[float]] = {task: [] for task in tasks}
    for text, item in zip(given, asked, strict=True):
        results[item.question.task].append(score(item.question.task, text, item.question.answer))
    return {task: sum(values) / number for task, values in results.items()}


def _facts(text: str) -> Counter[tuple[str, str]]:
    """Facts of a description: each shape's area with each of its attribute words."""
    facts: Counter[tuple[str, str]] = Counter()
    for clause in text.split(" and "):
        words = clause.split()
        # "at the ROW COLUMN a SIZE COLOR KIND with the letter LETTER"
        if len(words) == 12:
            area = f"{words[2]} {words[3]}"
            facts.update((area, word) for word in (*words[5:8], words[11]))
    return facts


def main(
    weights: Annotated[Path, typer.Argument(help="folder of an exported model")],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    level: Annotated[str, typer.Option(help="difficulty of the scenes")] = "several",
    number: Annotated[int, typer.Option(help="questions per task")] = 100,
    images: Annotated[str, typer.Option(help="own, black or wrong")] = "own",
    dtype: Annotated[str, typer.Option(help="number type to compute in")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice")] = 0,
) -> None:
    """Score a reference model on every task."""
    if threads:
        torch.set_num_threads(threads)
    kinds: dict[str, ImageKind] = {"own": "own", "black": "black", "wrong": "wrong"}
    if images not in kinds:
        raise typer.BadParameter(f"images must be one of {', '.join(kinds)}, got {images!r}")
    model = LlavaForConditionalGeneration.from_pretrained(weights, dtype=getattr(torch, dtype))
    processor = AutoProcessor.from_pretrained(weights)
    typer.echo(json.dumps(evaluate(model, processor, split, LEVELS[level], number, images=kinds[images])))


if __name__ == "__main__":
    typer.run(main)
