"""``vistrim analyze``: what a model attends to, and what its layers' rankings of visual tokens are worth."""

import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vistrim._utils.environment import command_line
from vistrim._utils.progress import progress_bars
from vistrim.analysis.attention import RANKINGS, Analysis, analyze
from vistrim.cli.calibrate import options
from vistrim.cli.calibrate.questions import calibration_items
from vistrim.cli.error_lines import WrongUsageError, resumable
from vistrim.cli.models import check_loading, load_model
from vistrim.cli.terminal_tables import print_tables
from vistrim.engine import describe
from vistrim.errors import MissingPackageError
from vistrim.evaluation.items import Item
from vistrim.evaluation.questions import check_placeholders

DEFAULT_QUESTIONS = 20
NOTHING = "nothing"


def analyze_command(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the results; an interrupted analysis goes on.", metavar="DIR")
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
    keep: Annotated[float, typer.Option(help="Share of the visual tokens that stays where rankings are tried.")] = 0.25,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers whose rankings are tried: 1/4/8, say.  [default: all, or 12 evenly spaced ones]",
            metavar="N/N/...",
        ),
    ] = None,
    rankings: Annotated[
        str,
        typer.Option(help=f"Comma-separated, of {', '.join(RANKINGS)}; '{NOTHING}' to look at attention alone."),
    ] = ",".join(RANKINGS),
    batch_size: options.BatchSize = 8,
    max_new_tokens: options.MaxNewTokens = 160,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print analysis.json instead of the tables.")] = False,
) -> None:
    """Look at what the untouched model attends to, layer by layer, and try what each layer's ranking is worth.

    Writes analysis.json, analysis.md and plots. Right answers are not needed: everything is compared with the untouched
    model's own answers.

    Example: vistrim analyze --model reference --tasks color,description --questions 20 --out attention
    """
    # Everything cheap is checked before the model is loaded.
    tried = _layers(layers)
    named = [] if rankings == NOTHING else [name.strip() for name in rankings.split(",") if name.strip()]
    check_loading(dtype, device)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plots need matplotlib; run `pip install 'vistrim[eval]'`")
    asked = calibration_items(model, data, tasks, split, questions, seed, "agreement", default_limit=DEFAULT_QUESTIONS)

    loaded, processor = load_model(model, dtype, device)
    check_placeholders(asked, processor)
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
        raise WrongUsageError(f"--layers {text}: write layer numbers with slashes between them, as in 1/4/8") from error
