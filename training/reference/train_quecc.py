"""Training of QueCC for the reference model: ``python -m training.reference.train_quecc``.

It has two stages, as LLaVA's recipe: first the compressor with its projector, then also the layers of the decoder. The
vision tower and the word embeddings are frozen. Every stage writes a checkpoint to the output folder and continues from
it if the command is run again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import typer
from rich.progress import Progress
from transformers import LlavaProcessor

from training.reference.batches import Batch, EasyVqaBatcher, SceneBatcher
from training.reference.export import export_model, load_learner
from training.reference.objectives import SUBJECT_WEIGHT, task_accuracy
from training.reference.quecc_learner import CompressedLearner, stride_for
from training.reference.recipe import HARD_TWICE
from training.reference.runs import Parts, Run
from training.reference.validation import validation_scores
from vistrim.engine import describe
from vistrim.loading import load
from vistrim.methods.base.artifacts import part_path, save_part
from vistrim.methods.quecc import QueCC
from vistrim.reference import easy_vqa
from vistrim.reference.processing import build_processor
from vistrim.reference.scenes import LEVELS
from vistrim.shipped import weights_path

LEVEL = "full"


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Parameters
    ----------
    name : str
        Part of the name of its checkpoint.
    tunes_decoder : bool
        Whether the layers of the decoder are trained with the compressor.
    steps : int
        Optimizer steps.
    lr : float
        Peak learning rate, see `training.reference.runs.Run`.
    images : int
        Images per step.
    questions : int
        Short questions per image. Each is a separate sample.
    described, easy_vqa : float
        Share of the steps with descriptions, and with training questions of easy-VQA, instead.
    """

    name: str
    tunes_decoder: bool
    steps: int
    lr: float
    images: int = 12
    questions: int = 6
    described: float = 0.2
    easy_vqa: float = 0.2


RECIPE = (
    Stage("compressor", tunes_decoder=False, steps=300, lr=2e-3),
    Stage("decoder", tunes_decoder=True, steps=400, lr=8e-4),
)


def new_learner(folder: Path, processor: LlavaProcessor, tokens: int, seed: int) -> CompressedLearner:
    """Create a trained model with an untrained compressor. The same seed gives the same weights."""
    torch.manual_seed(seed)
    learner = CompressedLearner(load_learner(folder, processor), tokens)
    images = SceneBatcher(processor, LEVELS[LEVEL], 16, HARD_TWICE, 0, 1.0, pixels=True).batch(0).pixels
    assert images is not None
    learner.start_as_pooling(images)
    return learner


class CompressionRun(Run):
    """One stage of the training."""

    def __init__(self, learner: CompressedLearner, processor: LlavaProcessor, stage: Stage, path: Path) -> None:
        super().__init__(stage.name, stage.steps, stage.lr, learner, _trained_parts(learner, stage), path)
        self.learner = learner
        self.stage = stage

        def scenes(questions: int, descriptions: float) -> SceneBatcher:
            return SceneBatcher(
                processor, LEVELS[LEVEL], stage.images, HARD_TWICE, questions, descriptions, pixels=True
            )

        self.short, self.described = scenes(stage.questions, 0.0), scenes(0, 1.0)
        self.easy_vqa = EasyVqaBatcher(processor, stage.images)

    def loss(self, device: torch.device) -> tuple[torch.Tensor, dict[str, float]]:
        """Compute the loss of the current step and the values to log."""
        # Each stage uses different scenes, and none from the training of the reference model.
        seed = self.step + 1_000_000 * (101 + [s.name for s in RECIPE].index(self.stage.name))
        batch = self._batch(seed).to(device)
        answers, subjects, right = self.learner.answer_loss(batch)
        return answers + SUBJECT_WEIGHT * subjects, {"answers": answers.item()} | task_accuracy(right, batch)

    def _batch(self, seed: int) -> Batch:
        drawn = Random(f"source:{seed}").random()
        if drawn < self.stage.easy_vqa:
            return self.easy_vqa.batch(seed)
        return (self.described if drawn < self.stage.easy_vqa + self.stage.described else self.short).batch(seed)


def _trained_parts(learner: CompressedLearner, stage: Stage) -> Parts:
    parts: dict[str, torch.nn.Module] = {"compressor": learner.compressor}
    if stage.tunes_decoder:
        decoder = learner.learner.model.model.language_model
        prefix = "learner.model.model.language_model"
        parts |= {f"{prefix}.layers": decoder.layers, f"{prefix}.norm": decoder.norm}
    return parts


def export_compressed(learner: CompressedLearner, processor: LlavaProcessor, folder: Path) -> None:
    """Write the model as a stock checkpoint, and its compressor (bfloat16) to the file that `QueCC` reads.

    Parameters
    ----------
    learner : CompressedLearner
        Not modified.
    processor : LlavaProcessor
        The processor.
    folder : Path
        Created if it does not exist. Existing files are replaced. The name of the folder is the name of the model.
    """
    model = learner.learner.model
    export_model(model, processor, folder)
    tensors = {
        name: value.detach().to("cpu", torch.bfloat16) for name, value in learner.compressor.state_dict().items()
    }
    settings = learner.compressor.shape.notes() | {"blocks": "/".join(map(str, learner.blocks))}
    facts = replace(describe(model).facts, name=folder.resolve().name)
    path = part_path(folder, QueCC.name)
    path.parent.mkdir(exist_ok=True)
    save_part(path, QueCC.name, facts, tensors, settings)


def main(
    tokens: Annotated[int, typer.Option(help="tokens per image: 1, 4, 9, 16 or 36")] = 16,
    device: Annotated[str, typer.Option(help="torch device")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for the default of torch")] = 0,
    steps: Annotated[str, typer.Option(help="steps of both stages, such as 300/600; default: the recipe")] = "",
    out: Annotated[Path, typer.Option(help="folder of checkpoints and log")] = Path("quecc-training"),
    init: Annotated[Path | None, typer.Option(help="exported weights to start from; default: shipped")] = None,
    export_to: Annotated[Path | None, typer.Option(help="write bfloat16 weights here during training")] = None,
    save_every: Annotated[int, typer.Option(help="steps between checkpoints")] = 100,
    validate: Annotated[int, typer.Option(help="validation questions per task at each export; 0: none")] = 16,
    seed: Annotated[int, typer.Option(help="seed of the compressor's initial weights")] = 0,
) -> None:
    """Train QueCC for the reference model, or continue its training."""
    if threads:
        torch.set_num_threads(threads)
    try:
        stride_for(tokens)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    wanted = [int(n) for n in steps.split("/")] if steps else [stage.steps for stage in RECIPE]
    if len(wanted) != len(RECIPE):
        raise typer.BadParameter(
            f"steps={steps}: must be a number for each of the {len(RECIPE)} stages, such as 300/600"
        )
    easy_vqa.pictures("train")
    out.mkdir(parents=True, exist_ok=True)
    processor = build_processor()
    learner = new_learner(init or weights_path("reference"), processor, tokens, seed).to(device)
    with Progress() as progress:
        for stage, number in zip(RECIPE, wanted, strict=True):
            run = CompressionRun(learner, processor, replace(stage, steps=number), out / f"{stage.name}-{tokens}.pt")
            run.resume()
            for _ in run.to_end(torch.device(device), out / "log.jsonl", save_every, progress):
                if export_to is None:
                    continue
                export_compressed(learner, processor, export_to)
                if validate:
                    model, _ = load(export_to, device=device)
                    scores = validation_scores(model, processor, QueCC(), LEVEL, validate)
                    run.note(out / "log.jsonl", {"validation": scores})


if __name__ == "__main__":
    typer.run(main)
