"""``vistrim calibrate dyvte``: routers that decide when a model no longer needs its image."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from vistrim._utils.environment import command_line
from vistrim._utils.progress import progress_bars
from vistrim.calibration.dyvte_exits import agreement, check_ends
from vistrim.calibration.dyvte_routers import Trained, check_samples, collect, train_routers
from vistrim.cli.calibrate import options
from vistrim.cli.calibrate.output import check_new_file
from vistrim.cli.calibrate.questions import calibration_items
from vistrim.cli.error_lines import WrongUsageError, resumable
from vistrim.cli.models import check_loading, load_model
from vistrim.cli.questions import TASKS_HELP
from vistrim.core.model_facts import ModelFacts
from vistrim.core.routing import exits_by_code, exits_by_paper
from vistrim.engine import describe
from vistrim.evaluation.questions import check_placeholders, digest
from vistrim.loading import identity
from vistrim.methods.base.artifacts import part_path, save_part

DEFAULT_TASKS = "short,description,easy-vqa"
WIDTH_OF_HIDDEN = 2
"""The authors' routers are 2048 wide for a hidden size of 4096."""
RULES = (
    "When a sample may exit. code: 99 % of its answer's tokens are predicted alike without the image, and its cross "
    "entropy is below 1.03 times that with it, as in the authors' code; paper: all are, and it is below --threshold."
)


def dyvte(
    out: Annotated[
        Path, typer.Option("--out", help="File of routers to write; a stopped run goes on.", metavar="FILE")
    ],
    model: options.Model = "reference",
    rule: Annotated[str, typer.Option(help=RULES)] = "code",
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Of the rule paper, in nats per token (the authors' is not known).")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Hidden units of a router.  [default: half of the model's hidden size]")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that the routers see every measurement.")] = 40,
    data: options.Data = None,
    tasks: Annotated[str | None, typer.Option(help=f"{TASKS_HELP}  [default: {DEFAULT_TASKS}]")] = None,
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
    """Train routers that decide, sample by sample, from which layer on the image is no longer needed.

    The model stays as it is: its right answers are read once with and without the image from every layer on, and the
    routers learn from what that changed. A run that was stopped goes on when the command is repeated.

    Example: vistrim calibrate dyvte --model reference --out dyvte.safetensors
    """
    # Everything cheap is checked before the model is loaded.
    may_exit = _rule(rule, threshold)
    check_loading(dtype, device)
    check_new_file(out, force)
    measurements = out.with_name(f"{out.name}.progress")
    if measurements.exists() and not measurements.is_dir():
        raise WrongUsageError(f"{measurements}, where measurements are kept, is a file: give another --out")
    questions = calibration_items(
        model, data, tasks, split, limit, seed, "accuracy", default_tasks=DEFAULT_TASKS, default_limit=500
    )
    _check(check_samples, len(questions))

    loaded, processor = load_model(model, dtype, device)
    facts = describe(loaded).facts
    check_placeholders(questions, processor)
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
    right = "none left"
    if found.right_exits is not None:
        right = f"the rule allows {100 * found.right_exits:.1f} % of the exits"
    typer.echo(
        f"on questions not learnt from, images are used in {found.exit_depth:.1f} of {facts.decoder.layers} layers on "
        f"average, where the rule allows {found.allowed_depth:.1f}; {right}"
    )
    typer.echo(f"use them with --method dyvte:routers={out}")
    typer.echo(f"or keep them at {part_path(Path('MODEL'), 'dyvte')}, in the model's folder, where dyvte finds them")


def _check(condition: Callable[[Any], None], value: Any) -> None:
    """Refuse before anything is measured what would be refused when all is."""
    try:
        condition(value)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error


def _rule(rule: str, threshold: float | None) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    if rule == "code":
        if threshold is not None:
            raise WrongUsageError("the rule of the code has no threshold: leave --threshold out, or take --rule paper")
        return lambda measured: exits_by_code(agreement(measured))
    if rule == "paper":
        if threshold is None:
            raise WrongUsageError("the rule of the paper needs a --threshold, in nats per token: 0.05, say")
        return lambda measured: exits_by_paper(agreement(measured), threshold)
    raise WrongUsageError(f"--rule {rule}: choose code or paper")


def _save(out: Path, model: ModelFacts, found: Trained, notes: dict[str, Any]) -> None:
    weights = {
        f"layers.{layer}.{name}": tensor.to(torch.bfloat16)
        for name, stacked in (("w1", found.w1), ("w2", found.w2))
        for layer, tensor in enumerate(stacked)
    }
    save_part(out, "dyvte", model, weights, notes)
