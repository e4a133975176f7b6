"""``vistrim calibrate yopo``: which attention heads of a model have to see images."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vistrim.calibration.heads import HeadCalibration, calibrate_heads
from vistrim.cli.errors import WrongUsageError
from vistrim.cli.models import check_loading, load_model
from vistrim.prompting import format_prompts
from vistrim.reference.items import Item, items
from vistrim.reference.scenes import LEVELS
from vistrim.reference.tasks import SHORT_TASKS, TASKS

PROMPTS = 100


def calibrate_yopo(
    model: Annotated[
        str, typer.Option(help="Reference model, local directory or Hugging Face id.", metavar="NAME")
    ] = "reference",
    keep: Annotated[
        float | None, typer.Option(help="Share of all heads that stays active; 0.75 unless --threshold is given.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Instead: attention to the image over attention to text, above which a head is active."),
    ] = None,
    tasks: Annotated[
        str, typer.Option(help=f"Comma-separated: {', '.join(TASKS)}; 'short' for all with short answers.")
    ] = "short,description",
    limit: Annotated[int, typer.Option(min=1, help="Questions in all.")] = PROMPTS,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 8,
    level: Annotated[str, typer.Option(help=f"Difficulty of the scenes: {', '.join(LEVELS)}.")] = "full",
    seed: Annotated[int, typer.Option(min=0, help="Which questions.")] = 0,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("yopo.safetensors"),
    dtype: Annotated[
        str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.", metavar="NAME")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", metavar="NAME")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")] = False,
) -> None:
    """Measure how much each attention head looks at images, and write the mask of those that stay active.

    Example: vistrim calibrate yopo --keep 0.5 --out heads.safetensors
    """
    # Everything cheap is checked before the model is loaded.
    if keep is not None and threshold is not None:
        raise WrongUsageError("--keep and --threshold are two ways to say the same: leave one out")
    if not out.parent.is_dir() or out.is_dir():
        raise WrongUsageError(f"cannot write {out}: give a file in a folder that exists")
    asked = _questions(tasks, level, limit, seed)
    check_loading(dtype, device)
    loaded, processor = load_model(model, dtype, device)
    batches = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
    console = Console(stderr=True)
    prompts = track(_prompts(loaded, processor, batches), "measuring", total=len(batches), console=console)
    share = 0.75 if keep is None and threshold is None else keep
    try:
        found = calibrate_heads(loaded, prompts, threshold=threshold, keep=share)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    found.save(out, loaded)
    if as_json:
        typer.echo(json.dumps(_summary(found, out)))
    else:
        _print(found, out)


def _questions(tasks: str, level: str, limit: int, seed: int) -> list[Item]:
    named = [part.strip() for part in tasks.split(",") if part.strip()]
    names = list(dict.fromkeys(name for part in named for name in (SHORT_TASKS if part == "short" else (part,))))
    if not names:
        raise WrongUsageError(f"no task: choose from short, {', '.join(TASKS)}")
    each = -(-limit // len(names))
    try:
        by_task = [items(name, "validation", level, each, seed) for name in names]
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    # In turns, so that a limit leaves out no task.
    return [item for turn in zip(*by_task, strict=True) for item in turn][:limit]


def _prompts(model: Any, processor: Any, batches: Sequence[Sequence[Item]]) -> Iterator[Any]:
    for batch in batches:
        inputs = format_prompts(processor, [item.prompt for item in batch], [[item.image()] for item in batch])
        yield inputs.to(model.device, dtype=model.dtype)


def _summary(found: HeadCalibration, out: Path) -> dict[str, Any]:
    return {
        "file": str(out),
        "threshold": found.threshold,
        "share": found.share,
        "active": found.active.sum(1).tolist(),
        "prompts": len(found.ratios),
    }


def _print(found: HeadCalibration, out: Path) -> None:
    typer.echo(f"{100 * found.share:.1f} % of the heads are active (threshold {found.threshold:.4g})")
    for layer, flags in enumerate(found.active.tolist()):
        typer.echo(f"layer {layer:>2}  {''.join('#' if flag else '.' for flag in flags)}  {sum(flags)} of {len(flags)}")
    typer.echo(f"written: {out}; use it with --method yopo:heads={out}")
