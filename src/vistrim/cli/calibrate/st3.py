"""``vistrim calibrate st3``: the schedule of ST³ that keeps most of a model's predictions at a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistrim.cli.budgets import ScheduleBudget, check_budget
from vistrim.cli.calibrate import options
from vistrim.cli.error_lines import WrongUsageError, resumable
from vistrim.cli.starting import importing

if TYPE_CHECKING:
    from vistrim.evaluation.items import Item
    from vistrim.methods.base.cut_schedule import CutSchedule

DEFAULT_PROMPTS = 32
FORMS = ("free", "st3")
METHOD = "st3"
EXPLANATION = (
    "answers kept: those of the untouched model of which each token is still the most likely; probability lost: by "
    "their tokens, on average"
)


def st3(
    out: options.Out,
    budget: ScheduleBudget,
    model: options.Model = "reference",
    form: Annotated[
        str,
        typer.Option(
            help="free: any cuts and rankings; st3: only the start layer, the stride and the share per cut of ST³."
        ),
    ] = "free",
    data: options.Data = None,
    tasks: options.Tasks = None,
    prompts: Annotated[
        int, typer.Option(min=2, help="Questions of each group of tasks (short answers, descriptions).")
    ] = DEFAULT_PROMPTS,
    split: options.Split = "validation",
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 8,
    max_new_tokens: options.MaxNewTokens = 160,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Search the cuts, the ranking and the annealing of ST³ that keep most of the model's predictions at a budget.

    Needs no correct answers: predictions for the untouched model's own answers are compared. Repeat the command to
    resume an interrupted search.

    Example: vistrim calibrate st3 --model llava-hf/llava-1.5-7b-hf --data mine.jsonl --budget flops=0.5 --out st3.json
    """
    # Imported late: torch and transformers take seconds, and --help needs neither.
    with importing():
        from vistrim._utils.environment import command_line, stamp
        from vistrim.cli.calibrate.output import finished
        from vistrim.cli.calibrate.questions import calibration_items
        from vistrim.cli.models import check_loading
        from vistrim.methods.base.cut_schedule import read_cut_schedule

    # Cheap checks come before the model is loaded.
    check_budget(budget)
    if form not in FORMS:
        raise WrongUsageError(f"--form {form}: choose {' or '.join(FORMS)}")
    check_loading(dtype, device)
    asked = calibration_items(model, data, tasks, split, prompts, seed, "agreement")
    settings = {
        "model": model,
        "dtype": dtype,
        "budget": budget,
        "form": form,
        "data": str(data) if data else None,
        "tasks": tasks,
        "prompts": prompts,
        "split": split,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
    }
    schedule = finished(out, METHOD, settings, force, read_cut_schedule)
    if schedule is None:
        notes = {"command": command_line(), "settings": settings, "environment": stamp()}
        schedule = _searched(model, asked, out, force, notes, batch_size, dtype, device)
        schedule.write(out)
    else:
        typer.echo(f"{out} already has the result of this command: use --force to repeat the search", err=True)
    _show(schedule, out, as_json)


def _searched(
    model: str,
    asked: list[Item],
    out: Path,
    force: bool,
    notes: dict[str, Any],
    batch_size: int,
    dtype: str,
    device: str,
) -> CutSchedule:
    from vistrim._utils.progress import progress_bars
    from vistrim.calibration.st3.calibrating import fit_schedule
    from vistrim.cli.models import load_model
    from vistrim.errors import InUseError, ResumeError
    from vistrim.evaluation.item_prompts import check_prompts

    loaded, processor = load_model(model, dtype, device)
    check_prompts(asked, processor)
    settings, progress = notes["settings"], out.with_name(f"{out.name}.progress.jsonl")

    def search() -> CutSchedule:
        with resumable(), progress_bars({"searching": 100}) as show:
            return fit_schedule(
                loaded,
                processor,
                asked,
                settings["budget"],
                form=settings["form"],
                prompts=settings["prompts"],
                batch_size=batch_size,
                max_new_tokens=settings["max_new_tokens"],
                progress_file=progress,
                notes=notes,
                advance=lambda share: show("searching", 100 * share),
            )

    try:
        return search()
    except ResumeError as error:
        if isinstance(error, InUseError) or not force:
            raise
        progress.unlink()
        return search()


def _show(schedule: CutSchedule, out: Path, as_json: bool) -> None:
    from rich.table import Table

    from vistrim.cli.terminal_tables import table_console
    from vistrim.methods.base.cut_schedule import schedule_path

    if as_json:
        typer.echo(json.dumps(schedule.content()))
        return
    console = table_console(markup=False)
    table = Table("from layer", "visual tokens kept")
    for layer, share in zip(schedule.cuts.layers, schedule.cuts.shares, strict=True):
        table.add_row(str(layer), f"{100 * share:.2f} %")
    console.print(table)
    annealing, evidence = schedule.annealing, schedule.made_with["evidence"]
    shown = "none"
    if annealing.decay != "constant":
        shown = (
            f"{annealing.decay}, horizon {annealing.horizon}, floor {annealing.floor}, every {annealing.interval} steps"
        )
    console.print(f"annealing: {shown}")
    differs = evidence["differs_from_st3"]
    console.print(f"differs from ST³: {', '.join(differs)}" if differs else "form of ST³", soft_wrap=True)
    reached = ", ".join(f"{kind} {value:.3f}" for kind, value in evidence["reached"].items())
    console.print(f"{schedule.budget}: reaches {reached} on {evidence['prompts']} prompts")
    loss, default = evidence["loss"], evidence["loss_of_default_st3"]
    console.print(f"this schedule: {_figures(loss)}", soft_wrap=True)
    if default is not None:
        console.print(f"ST³'s defaults at this budget: {_figures(default)}", soft_wrap=True)
    console.print(EXPLANATION, soft_wrap=True)
    beside = schedule_path(Path("MODEL"), schedule.budget)
    console.print(f"use it with --method {METHOD}:schedule={out}", soft_wrap=True)
    console.print(f"or save it as {beside}, in the model's folder, for {METHOD}:schedule=auto")


def _figures(loss: dict[str, float]) -> str:
    return f"answers kept {100 * loss['kept']:.1f} %, probability lost {100 * loss['lost']:.2f} %"
