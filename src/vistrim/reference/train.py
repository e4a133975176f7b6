"""Training of the reference models: ``python -m vistrim.reference.train``.

Every stage of the recipe keeps one checkpoint in the output folder and goes on from it when the command is given
again. Batches depend on the step alone, so an interrupted training ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from random import Random
from statistics import mean
from typing import Annotated, Any

import torch
import typer
from rich.progress import Progress
from torch import nn
from transformers import LlavaProcessor

from vistrim.evaluation.answering import answer
from vistrim.evaluation.scoring import score
from vistrim.reference import easy_vqa
from vistrim.reference.batches import Batch, EasyVqaBatcher, SceneBatcher
from vistrim.reference.export import export, load_learner
from vistrim.reference.items import items
from vistrim.reference.learner import Learner
from vistrim.reference.model import SIZES, Size, build_model, deepen, raise_layers
from vistrim.reference.objectives import stage_loss, trained_parts
from vistrim.reference.optimizer import build_optimizers
from vistrim.reference.processing import build_processor
from vistrim.reference.recipe import RECIPE, RECIPES, Stage
from vistrim.reference.scenes import LEVELS
from vistrim.reference.tasks import TASKS

WARMUP = 20
LOG_EVERY = 10
#: Longer than any description.
MAX_NEW_TOKENS = 160


def new_learner(size: Size, processor: LlavaProcessor, seed: int) -> Learner:
    """An untrained learner; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return Learner(build_model(size, processor.tokenizer), processor.tokenizer)


def learning_rate(stage: Stage, step: int) -> float:
    """Learning rate of a step: warm-up, plateau, linear decay over the last third."""
    warmup = min(1.0, (step + 1) / WARMUP)
    decay = min(1.0, 3 * (stage.steps - step) / stage.steps)
    return stage.lr * min(warmup, decay)


class StageRun:
    """One stage: its optimizers, its step counter and its checkpoint."""

    def __init__(self, learner: Learner, processor: LlavaProcessor, stage: Stage, path: Path) -> None:
        self.learner = learner
        self.stage = stage
        self.path = path
        self.parts = trained_parts(learner, stage)
        for parameter in learner.parameters():
            parameter.requires_grad_(False)
        for part in self.parts.values():
            part.requires_grad_(True)
        decoder = learner.model.model.language_model
        decoder.config.num_hidden_layers = stage.layers or len(decoder.layers)
        self.optimizers = build_optimizers(learner, stage.lr)
        self.scenes = SceneBatcher(
            processor,
            LEVELS[stage.level],
            stage.batch,
            stage.tasks,
            stage.questions,
            stage.descriptions,
            pixels=stage.part not in ("decoder", "layers"),
        )
        self.easy_vqa = EasyVqaBatcher(processor, stage.batch)
        self.step = 0

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one."""
        if self.path.exists():
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            self.learner.load_state_dict(saved["weights"], strict=False)
            self.step = saved["step"]
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the old one."""
        weights = {
            name: value for name, value in self.learner.state_dict().items() if name.startswith(tuple(self.parts))
        }
        partial = self.path.with_suffix(".partial")
        torch.save(
            {"weights": weights, "step": self.step, "optimizers": [o.state_dict() for o in self.optimizers]}, partial
        )
        os.replace(partial, self.path)

    def advance(self, device: torch.device) -> dict[str, float]:
        """One optimizer step; returns what to log."""
        # Each stage draws other scenes: its name moves the step counter.
        seed = self.step + 1_000_000 * (1 + [s.name for s in RECIPE].index(self.stage.name))
        batch = self._batch(seed).to(device)
        loss, logged = stage_loss(self.learner, self.stage, batch, seed)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.stage, self.step)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in self.learner.parameters() if p.grad is not None], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return {"loss": loss.item()} | logged

    def _batch(self, seed: int) -> Batch:
        easy = Random(f"source:{seed}").random() < self.stage.easy_vqa
        return (self.easy_vqa if easy else self.scenes).batch(seed)


def run_stage(run: StageRun, device: torch.device, log: Path, save_every: int, progress: Progress) -> Iterator[int]:
    """Train a stage to its end; yields the step after every checkpoint, and once where there is nothing left to do."""
    if run.step >= run.stage.steps:
        yield run.step
    bar = progress.add_task(run.stage.name, total=run.stage.steps, completed=run.step)
    sums: dict[str, list[float]] = defaultdict(list)
    started = time.perf_counter()
    while run.step < run.stage.steps:
        for name, value in run.advance(device).items():
            sums[name].append(value)
        progress.update(bar, completed=run.step)
        if run.step % LOG_EVERY == 0 or run.step == run.stage.steps:
            entry: dict[str, Any] = {"stage": run.stage.name, "step": run.step}
            entry |= {name: round(sum(values) / len(values), 4) for name, values in sums.items()}
            entry["seconds"] = round(time.perf_counter() - started, 1)
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            sums.clear()
        if run.step % save_every == 0 or run.step == run.stage.steps:
            run.save()
            yield run.step


def log_validation(learner: Learner, processor: LlavaProcessor, run: StageRun, number: int, log: Path) -> None:
    """Score plain greedy generation on ``number`` validation questions per task, and log it."""
    scores = {}
    for task in TASKS:
        asked = items(task, "validation", run.stage.level, number)
        given = answer(learner.model, processor, asked, None, MAX_NEW_TOKENS)
        scores[task] = mean(score(task, g.answer, item.answer) for g, item in zip(given, asked, strict=True))
    entry = {"stage": run.stage.name, "step": run.step, "validation": scores}
    with log.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def start_learner(
    size: str, processor: LlavaProcessor, seed: int, stages: list[Stage], out: Path, init: Path | None
) -> Learner:
    """The learner before the first of the chosen stages: new or from ``init``, with the finished stages' weights."""
    if init is not None:
        torch.manual_seed(seed)
        return load_learner(init, processor)
    learner = new_learner(SIZES[size], processor, seed)
    for stage in takewhile(lambda earlier: earlier.name != stages[0].name, RECIPES[size]):
        path = out / f"{stage.name}.pt"
        if path.exists():
            learner.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["weights"], strict=False)
            rearrange_layers(learner, stage)
    return learner


def rearrange_layers(learner: Learner, stage: Stage) -> None:
    """Bring the decoder layers into the order that the stages after a finished one expect."""
    if stage.layers is not None:
        deepen(learner.model, stage.layers)
    if stage.lead:
        raise_layers(learner.model, stage.lead)


def main(
    size: Annotated[str, typer.Option(help="base or small")] = "base",
    device: Annotated[str, typer.Option(help="torch device")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice")] = 0,
    stages: Annotated[str, typer.Option(help="comma-separated stages; all by default")] = "",
    steps: Annotated[int, typer.Option(help="steps per stage, instead of the recipe's; 0 keeps them")] = 0,
    out: Annotated[Path, typer.Option(help="folder of checkpoints and log")] = Path("reference-training"),
    init: Annotated[Path | None, typer.Option(help="exported weights to go on from")] = None,
    export_to: Annotated[Path | None, typer.Option(help="write bf16 weights here as the last stage goes")] = None,
    save_every: Annotated[int, typer.Option(help="steps between checkpoints")] = 100,
    validate: Annotated[int, typer.Option(help="validation questions per task at each checkpoint; 0: none")] = 16,
    seed: Annotated[int, typer.Option(help="seed of the initial weights")] = 0,
) -> None:
    """Train a reference model, or go on with it."""
    if threads:
        torch.set_num_threads(threads)
    if size not in SIZES:
        raise typer.BadParameter(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    known = {stage.name: stage for stage in RECIPES[size]}
    names = stages.split(",") if stages else list(known)[-1:] if init else list(known)
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"unknown stages {sorted(unknown)}; the recipe has {', '.join(known)}")
    chosen = [known[name] for name in names]
    if any(stage.easy_vqa for stage in chosen):
        easy_vqa.pictures("train")
    out.mkdir(parents=True, exist_ok=True)
    processor = build_processor()
    learner = start_learner(size, processor, seed, chosen, out, init).to(device)
    with Progress() as progress:
        for stage in chosen:
            run = StageRun(learner, processor, replace(stage, steps=steps or stage.steps), out / f"{stage.name}.pt")
            run.resume()
            for _ in run_stage(run, torch.device(device), out / "log.jsonl", save_every, progress):
                # Before the last stages the decoder has not seen the tower's tokens yet.
                if stage.part == "all":
                    if export_to is not None:
                        export(learner, processor, export_to)
                    if validate:
                        log_validation(learner, processor, run, validate, out / "log.jsonl")
            rearrange_layers(learner, stage)


if __name__ == "__main__":
    typer.run(main)
