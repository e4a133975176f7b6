"""``vistrim eval``: the accuracy that trimming retains."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vistrim._utils.labels import UNTOUCHED
from vistrim.cli.error_lines import CommandError
from vistrim.cli.reference_tasks import TASKS_HELP, read_items
from vistrim.errors import MissingPackageError
from vistrim.evaluation.items import Item
from vistrim.reference.items import NOTE
from vistrim.reference.scenes import LEVELS, SPLITS
from vistrim.shipped import NAMES

if TYPE_CHECKING:
    from vistrim.evaluation import RecordFile, Row
    from vistrim.methods import Method


def evaluate_command(
    model: Annotated[
        str, typer.Option(help="Reference model, local directory or Hugging Face id.", metavar="NAME")
    ] = "reference",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Trimming method, see `vistrim methods`; repeatable. st3 by default; 'untouched' for none.",
            metavar="NAME[:KEY=VALUE,...][+...]",
        ),
    ] = None,
    tasks: Annotated[str, typer.Option(help=TASKS_HELP)] = "short,description,easy-vqa",
    limit: Annotated[int, typer.Option(min=1, help="Questions per task.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Which questions, and which bootstrap draws.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder of samples and results; an interrupted evaluation goes on from it.")
    ] = Path("vistrim-eval"),
    level: Annotated[str, typer.Option(help=f"Difficulty of the scenes: {', '.join(LEVELS)}.")] = "full",
    split: Annotated[str, typer.Option(help=f"{', '.join(SPLITS)}; easy-vqa has no validation.")] = "test",
    images: Annotated[
        str, typer.Option(help="own, or to see that the image matters: black, or wrong (another question's).")
    ] = "own",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 160,
    dtype: Annotated[
        str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.", metavar="NAME")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", metavar="NAME")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of the tables.")] = False,
) -> None:
    """Ask the untouched model and trimming methods the same questions, and report the accuracy retained.

    Example: vistrim eval --method st3 --method st3:preset=compact --method random:keep=0.4 --out results
    """
    # torch and transformers take seconds to import: not for --help.
    from vistrim._utils.environment import command_line
    from vistrim.cli.models import check_loading, load_model, prepare_trim, shared_settings
    from vistrim.cli.parsing import parse_methods
    from vistrim.cli.terminal_tables import print_tables
    from vistrim.evaluation import RecordFile, summarize
    from vistrim.evaluation.accuracy_tables import notes, tables

    # Everything cheap is checked before the model is loaded.
    methods = parse_methods(method or ["st3"], {UNTOUCHED: None})
    asked = read_items(model, tasks, split, level, limit, seed, images)
    check_loading(dtype, device)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plot needs matplotlib; run `pip install 'vistrim[eval]'`")

    loaded, processor = load_model(model, dtype, device)
    for chosen in methods.values():
        prepare_trim(loaded, chosen)
    fixed = {**shared_settings(loaded, processor), "max_new_tokens": max_new_tokens}
    records = RecordFile(out, fixed)
    _run(loaded, processor, methods, asked, records, batch_size, max_new_tokens)
    settings = {
        "model": model,
        **fixed,
        "batch_size": batch_size,
        "tasks": tasks,
        "limit": limit,
        "seed": seed,
        "level": level,
        "split": split,
        "images": images,
    }
    rows = summarize(records, asked, methods, seed)
    # matplotlib takes a while to import: not for commands that draw nothing.
    from vistrim.evaluation.accuracy_report import write

    found = write(out, rows, settings, command_line(), NOTE if model in NAMES else "")
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_tables(
            tables(rows), [*notes(rows), f"written: {out / 'results.json'}, results.md, results.png, samples.jsonl"]
        )
    _complain_about_failures(rows, out)


def _run(
    model: Any,
    processor: Any,
    methods: dict[str, Method],
    asked: list[Item],
    records: RecordFile,
    batch_size: int,
    max_new_tokens: int,
) -> None:
    from vistrim.evaluation import evaluate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {label: progress.add_task(escape(label), total=len(asked)) for label in (UNTOUCHED, *methods)}
        try:
            evaluate(
                model,
                processor,
                methods,
                asked,
                records,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                advance=lambda label, answered: progress.advance(bars[label], answered),
            )
        except KeyboardInterrupt:
            progress.console.print("stopped: the same command goes on from here")
            raise


def _complain_about_failures(rows: Sequence[Row], out: Path) -> None:
    failures = [failure for row in rows for failure in row.failures]
    if failures:
        first = failures[0]
        raise CommandError(
            f"{len(failures)} items failed and are left out of the figures, first {first.item} with {first.method} "
            f"({first.error}): see {out / 'results.md'}; the same command tries them again"
        )
