"""``vistrim calibrate scaling``: what the published scaling law says about visual tokens and model size."""

import importlib.util
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vistrim.calibration.scaling import LAWS, PARAMETERS, best_visual_tokens, choices
from vistrim.cli.errors import WrongUsageError
from vistrim.errors import MissingPackageError

NOTE = (
    "Qwen1.5 models of 0.5 to 7 billion parameters, trained by the LLaVA-Next recipe with TokenPacker's compression "
    "(arXiv 2411.03312): no measurement of other models, nor of trimming without training. The published exponents "
    "come from a search that stops early; refitted to the authors' data they differ, and only their ratio is well "
    "determined."
)
PIPE_WIDTH = 140


def scaling(
    text_tokens: Annotated[int, typer.Option(min=0, help="Tokens of text in the prompt.")] = 50,
    flops: Annotated[
        float | None,
        typer.Option(min=0, help="FLOPs of the prefill, 2 N (Q + V): choose among --size.", metavar="NUMBER"),
    ] = None,
    size: Annotated[
        list[float] | None, typer.Option(help="Billions of parameters; repeatable. The paper's by default.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Visual tokens that the vision tower has.")] = 576,
    law: Annotated[str, typer.Option(help=f"Law to choose by: {', '.join(LAWS)}.")] = "refit",
    plot: Annotated[Path | None, typer.Option(help="Draw measurements and law.", metavar="FILE.png")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Say how many visual tokens, and which model size, a published scaling law takes for best.

    Example: vistrim calibrate scaling --text-tokens 50 --flops 1e12 --plot scaling.png
    """
    if law not in LAWS:
        raise WrongUsageError(f"no law {law!r}: choose {', '.join(LAWS)}")
    sizes = tuple(size or PARAMETERS)
    if not all(0 < one < math.inf for one in sizes):
        raise WrongUsageError(f"--size {', '.join(f'{one:g}' for one in sizes)}: give billions of parameters, above 0")
    if flops is not None and not math.isfinite(flops):
        raise WrongUsageError(f"--flops {flops:g}: give a number, 1e12, say")
    found: dict[str, Any] = {
        "text_tokens": text_tokens,
        "laws": {
            name: {**asdict(one), "ratio": one.ratio, "visual_tokens": best_visual_tokens(one, text_tokens, most)}
            for name, one in LAWS.items()
        },
        "note": NOTE,
    }
    if flops is not None:
        try:
            best = choices(LAWS[law], text_tokens, flops / 1e9, sizes, most)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
        found |= {"law": law, "flops": flops, "choices": [asdict(choice) for choice in best]}
    if plot is not None:
        _draw(plot, text_tokens, flops)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _print(found, plot)


def _draw(path: Path, text_tokens: int, flops: float | None) -> None:
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise WrongUsageError(f"--plot {path}: write a .png file in a folder that exists")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plot needs matplotlib; run `pip install 'vistrim[eval]'`")
    # matplotlib takes a while to import: not for commands that draw nothing.
    from vistrim.calibration.scaling_plot import BUDGETS, plot

    plot(text_tokens, BUDGETS if flops is None else (flops / 1e9,), path)


def _print(found: dict[str, Any], plot: Path | None) -> None:
    # A pipe has no width of its own.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    laws = Table(
        "law",
        "alpha (size)",
        "beta (visual tokens)",
        "alpha / beta",
        f"best visual tokens for {found['text_tokens']} of text",
        title="Model size free, any FLOP budget",
    )
    for name, one in found["laws"].items():
        numbers = f"{one['alpha']:.4f}", f"{one['beta']:.4f}", f"{one['ratio']:.2f}", f"{one['visual_tokens']:.1f}"
        laws.add_row(name, *numbers)
    console.print(laws)
    if "choices" in found:
        title = f"{found['flops']:g} FLOPs, law {found['law']}, best first"
        table = Table("billion parameters", "visual tokens", "FLOPs", "reducible error, best = 1", title=title)
        best = found["choices"][0]["reducible"]
        for one in found["choices"]:
            cost, relative = f"{1e9 * one['flops']:.4g}", f"{one['reducible'] / best:.4f}"
            table.add_row(f"{one['parameters']:g}", str(one["visual_tokens"]), cost, relative)
        console.print(table)
    console.print(NOTE)
    if plot is not None:
        console.print(f"plot: {plot}", soft_wrap=True)
