"""``vistrim calibrate yopo``: the attention heads of a model that have to attend to images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistrim._utils.progress import Advance, progress_bars
from vistrim.cli.calibrate import options
from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.starting import importing
from vistrim.evaluation.item_prompts import check_prompts, format_items
from vistrim.evaluation.items import Item

if TYPE_CHECKING:
    from vistrim.calibration.yopo_heads import HeadCalibration

DEFAULT_KEEP = 0.75
DEFAULT_LIMIT = 10


def yopo(
    out: Annotated[Path, typer.Option("--out", help="Mask of heads to write.", metavar="FILE")],
    model: options.Model = "reference",
    keep: Annotated[
        float | None, typer.Option(help="Share of all heads that stays active.", show_default=str(DEFAULT_KEEP))
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Instead of --keep: ratio of attention to images and to text above which a head is active."),
    ] = None,
    data: options.Data = None,
    tasks: options.Tasks = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"Questions per task ({DEFAULT_LIMIT} by default), or lines of --data.")
    ] = None,
    split: options.Split = "validation",
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 8,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Measure the attention of each head to images, and write the mask of the heads that stay active.

    Needs one forward pass per question, and no correct answers. --keep is a share of heads: all visual tokens stay, so
    that there is no --budget.

    Example: vistrim calibrate yopo --keep 0.5 --out heads.safetensors
    """
    # Imported late: torch and transformers take seconds, and --help needs neither.
    with importing():
        from vistrim.calibration.yopo_heads import calibrate_heads
        from vistrim.cli.calibrate.output import check_new_file
        from vistrim.cli.calibrate.questions import calibration_items
        from vistrim.cli.models import check_loading, load_model

    # Cheap checks come before the model is loaded.
    if keep is not None and threshold is not None:
        raise WrongUsageError("--keep and --threshold exclude each other: leave one out")
    check_loading(dtype, device)
    check_new_file(out, force)
    asked = calibration_items(model, data, tasks, split, limit, seed, "agreement", default_limit=DEFAULT_LIMIT)

    loaded, processor = load_model(model, dtype, device)
    check_prompts(asked, processor)
    batches = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
    share = DEFAULT_KEEP if keep is None and threshold is None else keep
    with progress_bars({"measuring": len(asked)}) as advance:
        prompts = _prompts(loaded, processor, batches, advance)
        try:
            found = calibrate_heads(loaded, prompts, threshold=threshold, keep=share)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
    found.save(out, loaded)
    if as_json:
        typer.echo(json.dumps(_summary(found, out)))
    else:
        _print(found, out)


def _prompts(model: Any, processor: Any, batches: Sequence[Sequence[Item]], advance: Advance) -> Iterator[Any]:
    for batch in batches:
        inputs = format_items(processor, batch)
        yield inputs.to(model.device, dtype=model.dtype)
        advance("measuring", len(batch))


def _summary(found: HeadCalibration, out: Path) -> dict[str, Any]:
    return {
        "file": str(out),
        "threshold": found.threshold,
        "share": found.share,
        "active": found.active.sum(1).tolist(),
        "prompts": len(found.ratios),
    }


def _print(found: HeadCalibration, out: Path) -> None:
    from vistrim.methods.base.artifacts import part_path

    typer.echo(f"{100 * found.share:.1f} % of the heads are active (threshold {found.threshold:.4g})")
    for layer, flags in enumerate(found.active.tolist()):
        typer.echo(f"layer {layer:>2}  {''.join('#' if flag else '.' for flag in flags)}  {sum(flags)} of {len(flags)}")
    typer.echo(f"use it with --method yopo:heads={out}")
    typer.echo(f"or save it as {part_path(Path('MODEL'), 'yopo')}, in the model's folder, for yopo:heads=auto")
