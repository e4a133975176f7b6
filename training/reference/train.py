"""Training of the reference models: ``python -m training.reference.train``.

Every stage of the recipe writes a checkpoint to the output folder and continues from it if the command is run again.
Batches depend only on the step, so an interrupted training ends with the same weights as an uninterrupted one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import typer
from rich.progress import Progress
from transformers import LlavaProcessor

from training.reference.batches import EasyVqaBatcher, SceneBatcher
from training.reference.export import export, load_learner
from training.reference.learner import Learner
from training.reference.model import SIZES, Size, build_model, deepen, raise_layers
from training.reference.objectives import stage_loss, trained_parts
from training.reference.recipe import RECIPE, RECIPES, Stage
from training.reference.runs import Run
from training.reference.validation import validation_scores
from vistrim.reference import easy_vqa
from vistrim.reference.processing import build_processor
from vistrim.reference.scenes import LEVELS

#: Training state of the shipped models, relative to the root of the repository.
STATES = Path("training/state")


def new_learner(size: Size, processor: LlavaProcessor, seed: int) -> Learner:
    """Create an untrained learner. The same seed gives the same weights."""
    torch.manual_seed(seed)
    return Learner(build_model(size, processor.tokenizer), processor.tokenizer)


class StageRun(Run):
    """One stage of the recipe."""

    def __init__(self, learner: Learner, processor: LlavaProcessor, stage: Stage, path: Path) -> None:
        decoder = learner.model.model.language_model
        decoder.config.num_hidden_layers = stage.layers or len(decoder.layers)
        super().__init__(stage.name, stage.steps, stage.lr, learner, trained_parts(learner, stage), path)
        self.learner = learner
        self.stage = stage
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

    def loss(self, device: torch.device) -> tuple[torch.Tensor, dict[str, float]]:
        """Compute the loss of the current step and the values to log."""
        # Each stage uses different scenes: its name determines an offset of the step.
        seed = self.step + 1_000_000 * (1 + [s.name for s in RECIPE].index(self.stage.name))
        easy = Random(f"source:{seed}").random() < self.stage.easy_vqa
        batch = (self.easy_vqa if easy else self.scenes).batch(seed)
        return stage_loss(self.learner, self.stage, batch.to(device), seed)


def start_learner(
    size: str,
    processor: LlavaProcessor,
    seed: int,
    stages: list[Stage],
    out: Path,
    init: Path | None,
    init_state: Path | None,
) -> Learner:
    """Create the learner for the first of the chosen stages: new or from ``init``, with weights of finished stages."""
    if init is not None:
        torch.manual_seed(seed)
        return load_learner(init, processor, init_state)
    learner = new_learner(SIZES[size], processor, seed)
    for stage in takewhile(lambda earlier: earlier.name != stages[0].name, RECIPES[size]):
        path = out / f"{stage.name}.pt"
        if path.exists():
            learner.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["weights"], strict=False)
            rearrange_layers(learner, stage)
    return learner


def rearrange_layers(learner: Learner, stage: Stage) -> None:
    """Arrange the decoder layers as expected by the stages after a finished one."""
    if stage.layers is not None:
        deepen(learner.model, stage.layers)
    if stage.lead:
        raise_layers(learner.model, stage.lead)


def main(
    size: Annotated[str, typer.Option(help="base or small")] = "base",
    device: Annotated[str, typer.Option(help="torch device")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for the default of torch")] = 0,
    stages: Annotated[str, typer.Option(help="comma-separated stages; all by default")] = "",
    steps: Annotated[int, typer.Option(help="steps per stage; 0 for those of the recipe")] = 0,
    out: Annotated[Path, typer.Option(help="folder of checkpoints and log")] = Path("reference-training"),
    init: Annotated[Path | None, typer.Option(help="exported weights to continue from")] = None,
    init_state: Annotated[
        Path | None,
        typer.Option(
            help=f"training state that belongs to them  [default: {STATES}/<name of their folder>.safetensors]"
        ),
    ] = None,
    export_to: Annotated[
        Path | None,
        typer.Option(
            help="write bfloat16 weights here in the last stage, and the training state to OUT/state.safetensors"
        ),
    ] = None,
    save_every: Annotated[int, typer.Option(help="steps between checkpoints")] = 100,
    validate: Annotated[int, typer.Option(help="validation questions per task at each checkpoint; 0: none")] = 16,
    seed: Annotated[int, typer.Option(help="seed of the initial weights")] = 0,
) -> None:
    """Train a reference model, or continue its training."""
    if threads:
        torch.set_num_threads(threads)
    if size not in SIZES:
        raise typer.BadParameter(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    known = {stage.name: stage for stage in RECIPES[size]}
    names = stages.split(",") if stages else list(known)[-1:] if init else list(known)
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"unknown stages {sorted(unknown)}; the recipe has {', '.join(known)}")
    chosen = [known[name] for name in names]
    if init is not None:
        init_state = init_state or STATES / f"{init.resolve().name}.safetensors"
        if not init_state.is_file():
            raise typer.BadParameter(
                f"there is no training state {init_state}: set --init-state (every export writes one to its --out "
                "folder)"
            )
    if any(stage.easy_vqa for stage in chosen):
        easy_vqa.pictures("train")
    out.mkdir(parents=True, exist_ok=True)
    processor = build_processor()
    learner = start_learner(size, processor, seed, chosen, out, init, init_state).to(device)
    with Progress() as progress:
        for stage in chosen:
            run = StageRun(learner, processor, replace(stage, steps=steps or stage.steps), out / f"{stage.name}.pt")
            run.resume()
            for _ in run.to_end(torch.device(device), out / "log.jsonl", save_every, progress):
                # Before the last stages, the decoder was not trained on tokens of the tower.
                if stage.part == "all":
                    if export_to is not None:
                        export(learner, processor, export_to, out / "state.safetensors")
                    if validate:
                        scores = validation_scores(learner.model, processor, None, stage.level, validate)
                        run.note(out / "log.jsonl", {"validation": scores})
            rearrange_layers(learner, stage)


if __name__ == "__main__":
    typer.run(main)
