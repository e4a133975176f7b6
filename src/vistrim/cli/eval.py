"""``vistrim eval``: the accuracy that trimming retains."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistrim._utils.labels import UNTOUCHED
from vistrim.cli.answering import Actors, Ray, answering
from vistrim.cli.budgets import Budget, check_budget, set_methods
from vistrim.cli.error_lines import CommandError, resumable
from vistrim.cli.loading_options import Device, Dtype, Model
from vistrim.cli.output_folders import check_folder
from vistrim.cli.questions import TASKS_HELP, Data, read_items
from vistrim.cli.starting import importing
from vistrim.errors import MissingPackageError
from vistrim.evaluation.items import Item
from vistrim.reference.items import NOTE
from vistrim.reference.scenes import LEVELS, SPLITS
from vistrim.shipped import NAMES

if TYPE_CHECKING:
    from vistrim.evaluation import Evaluation

DEFAULT_TASKS = "short,description,easy-vqa"
DEFAULT_LIMIT = 100


def evaluate_command(
    model: Model = "reference",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Trimming method, see `vistrim methods`; repeatable. By default st3, which is its closed form "
            "(st3:schedule=auto uses the schedules of a model); 'untouched' for none.",
            metavar="NAME[:KEY=VALUE,...][+...]",
        ),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help=TASKS_HELP, show_default=DEFAULT_TASKS)] = None,
    data: Data = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"Questions per task ({DEFAULT_LIMIT} by default), or of --data (all).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 8,
    budget: Budget = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of questions and of the bootstrap.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder of samples and results; an interrupted evaluation resumes from it.")
    ] = Path("vistrim-eval"),
    level: Annotated[str, typer.Option(help=f"Difficulty of the scenes: {', '.join(LEVELS)}.")] = "full",
    split: Annotated[str, typer.Option(help=f"{', '.join(SPLITS)}; easy-vqa has no validation.")] = "test",
    images: Annotated[
        str, typer.Option(help="own; or black or wrong (another question's), to measure the influence of the image.")
    ] = "own",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 160,
    dtype: Dtype = "auto",
    device: Device = "auto",
    ray: Ray = None,
    actors: Actors = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of the tables.")] = False,
) -> None:
    """Ask the untouched model and trimming methods the same questions, and report the retained accuracy.

    Example: vistrim eval --method st3 --method st3:preset=compact --method random:keep=0.4 --out results
    """
    # The cheapest checks come first: torch takes seconds to import, transformers takes longer, and a model longest.
    check_folder(out)
    asked = read_items(
        model,
        data,
        tasks,
        DEFAULT_TASKS,
        split=split,
        limit=limit,
        default_limit=DEFAULT_LIMIT,
        seed=seed,
        level=level,
        images=images,
    )
    with importing():
        from vistrim.cli.parsing import note_schedules, parse_methods
    methods = parse_methods(method or ["st3"], {UNTOUCHED: None})
    check_budget(budget)
    with importing():
        from vistrim._utils.environment import command_line
        from vistrim.cli.models import check_loading, load_model
        from vistrim.cli.terminal_tables import print_tables
        from vistrim.evaluation import evaluate
        from vistrim.evaluation.accuracy_tables import notes, tables
        from vistrim.evaluation.evaluating import SAMPLES
        from vistrim.evaluation.typical_inputs import typical_inputs
    if ray is None:
        check_loading(dtype, device)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plot needs matplotlib: run `pip install 'vistrim[eval]'`")

    if ray is not None or actors is not None:
        found = _on_cluster(
            {UNTOUCHED: UNTOUCHED} | {label: str(each) for label, each in methods.items()},
            asked,
            {"model": model, "budget": budget, "dtype": dtype, "device": device, "max_new_tokens": max_new_tokens},
            ray=ray,
            actors=actors,
            out=out,
            batch_size=batch_size,
            seed=seed,
        )
    else:
        loaded, processor = load_model(model, dtype, device)
        note_schedules(map(str, methods.values()), loaded)
        if budget is not None:
            methods = set_methods(methods, loaded, budget, typical_inputs(processor, asked), max_new_tokens)
        with resumable():
            found = evaluate(
                loaded,
                processor,
                methods,
                asked,
                out=out,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                seed=seed,
            )
    if data is None:
        source = {"tasks": tasks or DEFAULT_TASKS, "level": level, "split": split, "images": images}
        remark = NOTE if model in NAMES else ""
    else:
        source, remark = {"data": str(data)}, ""
    limits = {"limit": limit or DEFAULT_LIMIT} if data is None else {} if limit is None else {"limit": limit}
    found = replace(found, settings={"model": model, **found.settings, **source, **limits})
    # Imported late: matplotlib is slow to import.
    from vistrim.evaluation.accuracy_entries import entries_of
    from vistrim.evaluation.accuracy_report import write
    from vistrim.evaluation.entries import write_entries

    content = write(out, found, command_line(), remark)
    write_entries(out, entries_of(found, asked, budget))
    if as_json:
        typer.echo(json.dumps(content))
    else:
        written = f"written: {out / 'results.json'}, results.md, results.png, leaderboard.json, samples.jsonl"
        print_tables(tables(found.rows), [*notes(found.rows), written])
    if found.others:
        typer.echo(
            f"note: {out / SAMPLES} also has answers of {', '.join(found.others)}: for tables with all methods, repeat "
            "the command with --method for each of them; nothing is answered again",
            err=True,
        )
    if found.failures:
        first = found.failures[0]
        raise CommandError(
            f"{len(found.failures)} items failed and are left out of the figures, first {first.item} with "
            f"{first.method} ({first.error}): see {out / 'results.md'}, and repeat the command to retry them"
        )


def _on_cluster(
    methods: Mapping[str, str],
    asked: Sequence[Item],
    settings: dict[str, Any],
    *,
    ray: str | None,
    actors: int | None,
    out: Path,
    batch_size: int,
    seed: int,
) -> Evaluation:
    from vistrim.batching.evaluating import evaluate_with
    from vistrim.batching.predictor import Predictor, columns
    from vistrim.evaluation.typical_inputs import typical

    budget = settings.pop("budget")
    at = {} if budget is None else {"budget": budget, "budget_prompts": columns(typical(asked))}
    predictors = {
        label if budget is None or label == UNTOUCHED else f"{label} at {budget}": Predictor(
            method=method, **settings, **({} if label == UNTOUCHED else at)
        )
        for label, method in methods.items()
    }
    with answering(ray, actors, batch_size) as (identify, answerer), resumable():
        return evaluate_with(
            predictors, asked, identify=identify, answerer=answerer, out=out, batch_size=batch_size, seed=seed
        )
