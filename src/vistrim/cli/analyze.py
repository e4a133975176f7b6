"""``vistrim analyze``: attention of a model, and the quality of its layers' rankings of visual tokens."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistrim._utils.progress import progress_bars
from vistrim.analysis.attention.names import RANKINGS
from vistrim.cli.calibrate import options
from vistrim.cli.calibrate.questions import calibration_items
from vistrim.cli.error_lines import WrongUsageError, resumable
from vistrim.cli.output_folders import check_folder
from vistrim.cli.starting import importing
from vistrim.errors import MissingPackageError
from vistrim.evaluation.item_prompts import check_prompts
from vistrim.evaluation.items import Item

if TYPE_CHECKING:
    from vistrim.analysis.attention import Analysis

DEFAULT_QUESTIONS = 20
NOTHING = "nothing"


def analyze_command(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of results; an interrupted analysis resumes from it.", metavar="DIR")
    ],
    model: options.Model = "reference",
    data: options.Data = None,
    tasks: options.Tasks = None,
    questions: Annotated[
        int | None,
        typer.Option(min=1, help=f"Questions per task ({DEFAULT_QUESTIONS} by default), or lines of --data (all)."),
    ] = None,
    split: options.Split = "validation",
    seed: options.Seed = 0,
    keep: Annotated[float, typer.Option(help="Share of the visual tokens that stays when rankings are tried.")] = 0.25,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers whose rankings are tried, such as 1/4/8.",
            show_default="all, or 12 evenly spaced ones",
            metavar="N/N/...",
        ),
    ] = None,
    rankings: Annotated[
        str,
        typer.Option(help=f"Comma-separated, of {', '.join(RANKINGS)}; '{NOTHING}' for attention alone."),
    ] = ",".join(RANKINGS),
    batch_size: options.BatchSize = 8,
    max_new_tokens: options.MaxNewTokens = 160,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print analysis.json instead of the tables.")] = False,
) -> None:
    """Analyze the attention of the untouched model, and test the rankings of visual tokens by its layers.

    Writes analysis.json, analysis.md and plots. Correct answers are not needed: everything is compared with the
    untouched model's own answers. No method is run; --keep takes the place of a budget.

    Example: vistrim analyze --model reference --tasks color,description --questions 20 --out attention
    """
    # The cheapest checks come first: torch and transformers take seconds to import, and a model takes longer.
    check_folder(out)
    tried = _layers(layers)
    named = [] if rankings == NOTHING else [name.strip() for name in rankings.split(",") if name.strip()]
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plots need matplotlib: run `pip install 'vistrim[eval]'`")
    asked = calibration_items(model, data, tasks, split, questions, seed, "agreement", default_limit=DEFAULT_QUESTIONS)
    with importing():
        from vistrim._utils.environment import command_line
        from vistrim.cli.models import check_loading, load_model
        from vistrim.cli.terminal_tables import print_tables
        from vistrim.engine import describe
    check_loading(dtype, device)

    loaded, processor = load_model(model, dtype, device)
    check_prompts(asked, processor)
    found = _run(
        loaded,
        processor,
        asked,
        out=out,
        keep=keep,
        layers=tried,
        rankings=named,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    written = found.write(out, command_line(), model, describe(loaded).images.grid)
    if as_json:
        typer.echo(json.dumps(written))
    else:
        print_tables(found.tables(), [f"written: {out / 'analysis.json'}, analysis.md, *.png, samples.jsonl"])


def _run(model: Any, processor: Any, asked: list[Item], **settings: Any) -> Analysis:
    from vistrim.analysis.attention import analyze

    bar = f"analyzing {len(asked)} questions"
    with resumable(), progress_bars({bar: len(asked)}) as advance:
        try:
            return analyze(model, processor, asked, advance=partial(advance, bar), **settings)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error


def _layers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split("/"))
    except ValueError as error:
        raise WrongUsageError(f"--layers {text}: separate layer numbers by slashes, as in 1/4/8") from error
