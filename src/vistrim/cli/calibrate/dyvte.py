"""``vistrim calibrate dyvte``: routers that decide from which layer on a sample no longer needs its image."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistrim._utils.progress import progress_bars
from vistrim.cli.calibrate import options
from vistrim.cli.error_lines import WrongUsageError, resumable
from vistrim.cli.questions import TASKS_HELP
from vistrim.cli.starting import importing
from vistrim.evaluation.item_prompts import check_prompts
from vistrim.evaluation.questions import digest

if TYPE_CHECKING:
    import torch

    from vistrim.calibration.dyvte_routers import Trained
    from vistrim.core.model_facts import ModelFacts

DEFAULT_TASKS = "short,description,easy-vqa"
WIDTH_OF_HIDDEN = 2
"""The authors' routers have 2048 hidden units for a hidden size of 4096."""
RULES = (
    "When a sample may exit. code: 99 % of its answer's tokens have the same prediction without the image, and the "
    "cross entropy is below 1.03 times that with the image, as in the authors' code; paper: all tokens have the same "
    "prediction, and the cross entropy is below --threshold."
)


def dyvte(
    out: Annotated[
        Path, typer.Option("--out", help="File of routers to write; an interrupted run resumes.", metavar="FILE")
    ],
    model: options.Model = "reference",
    rule: Annotated[str, typer.Option(help=RULES)] = "code",
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Threshold of --rule paper, in nats per token (not published).")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(min=1, help="Hidden units of a router.", show_default="half of the model's hidden size"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training over all measurements.")] = 40,
    data: options.Data = None,
    tasks: Annotated[str | None, typer.Option(help=TASKS_HELP, show_default=DEFAULT_TASKS)] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions per task (500 by default), or lines of --data (all).")
    ] = None,
    split: options.Split = "train",
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 8,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Train routers that decide for each sample from which layer on the image is no longer needed.

    The model is not changed. It reads the correct answers once with and without the image from every layer on, and the
    routers are trained on the differences. Repeat the command to resume an interrupted run. There is no --budget: the
    routers decide on the number of tokens for each sample.

    Example: vistrim calibrate dyvte --model reference --out dyvte.safetensors
    """
    # Imported late: torch and transformers take seconds, and --help needs neither.
    with importing():
        from vistrim._utils.environment import command_line
        from vistrim.calibration.dyvte_exits import check_ends
        from vistrim.calibration.dyvte_routers import check_samples, collect, train_routers
        from vistrim.cli.calibrate.output import check_new_file
        from vistrim.cli.calibrate.questions import calibration_items
        from vistrim.cli.models import check_loading, load_model
        from vistrim.engine import describe
        from vistrim.loading import identity
        from vistrim.methods.base.artifacts import part_path

    # Cheap checks come before the model is loaded.
    may_exit = _rule(rule, threshold)
    check_loading(dtype, device)
    check_new_file(out, force)
    measurements = out.with_name(f"{out.name}.progress")
    if measurements.exists() and not measurements.is_dir():
        raise WrongUsageError(f"{measurements}, the folder of measurements, is a file: give another --out")
    questions = calibration_items(
        model, data, tasks, split, limit, seed, "accuracy", default_tasks=DEFAULT_TASKS, default_limit=500
    )
    _check(check_samples, len(questions))

    loaded, processor = load_model(model, dtype, device)
    facts = describe(loaded).facts
    check_prompts(questions, processor)
    _check(check_ends, processor.tokenizer)
    width = width or max(1, facts.decoder.hidden // WIDTH_OF_HIDDEN)
    with resumable(), progress_bars({"measuring exits": len(questions), "training routers": epochs}) as advance:
        try:
            measured = collect(
                loaded,
                processor,
                questions,
                measurements,
                str(identity(loaded, processor)),
                batch_size,
                partial(advance, "measuring exits"),
            )
            found = train_routers(
                measured["summary"],
                may_exit(measured),
                width,
                epochs,
                seed=seed,
                advance=partial(advance, "training routers"),
            )
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
    notes = {
        "rule": rule if threshold is None else f"{rule}, threshold {threshold:g}",
        "width": width,
        "questions": len(questions),
        "questions_digest": digest(questions),
        "right_exits": None if found.right_exits is None else round(found.right_exits, 4),
        "exit_depth": round(found.exit_depth, 3),
        "allowed_depth": round(found.allowed_depth, 3),
        "command": command_line(),
    }
    _save(out, facts, found, notes)
    if as_json:
        typer.echo(json.dumps(notes))
        return
    right = "no sample exited"
    if found.right_exits is not None:
        right = f"the rule allows {100 * found.right_exits:.1f} % of the exits"
    typer.echo(
        f"on held-out questions, images are used in {found.exit_depth:.1f} of {facts.decoder.layers} layers on average "
        f"(the rule allows {found.allowed_depth:.1f}); {right}"
    )
    typer.echo(f"use them with --method dyvte:routers={out}")
    typer.echo(f"or save them as {part_path(Path('MODEL'), 'dyvte')}, in the model's folder, where dyvte finds them")


def _check(condition: Callable[[Any], None], value: Any) -> None:
    """Run a check of the training before the measurements."""
    try:
        condition(value)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error


def _rule(rule: str, threshold: float | None) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    from vistrim.calibration.dyvte_exits import agreement
    from vistrim.core.routing import exits_by_code, exits_by_paper

    if rule == "code":
        if threshold is not None:
            raise WrongUsageError("--rule code has no threshold: leave out --threshold, or use --rule paper")
        return lambda measured: exits_by_code(agreement(measured))
    if rule == "paper":
        if threshold is None:
            raise WrongUsageError("--rule paper needs a --threshold in nats per token, such as 0.05")
        return lambda measured: exits_by_paper(agreement(measured), threshold)
    raise WrongUsageError(f"--rule {rule}: choose code or paper")


def _save(out: Path, model: ModelFacts, found: Trained, notes: dict[str, Any]) -> None:
    import torch

    from vistrim.methods.base.artifacts import save_part

    weights = {
        f"layers.{layer}.{name}": tensor.to(torch.bfloat16)
        for name, stacked in (("w1", found.w1), ("w2", found.w2))
        for layer, tensor in enumerate(stacked)
    }
    save_part(out, "dyvte", model, weights, notes)
