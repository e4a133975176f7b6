"""``vistrim bench``: time and memory of the untouched and the trimmed model, with speed-up bounds."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.speed_tables import tables
from vistrim.cli.budgets import Budget, check_budget
from vistrim.cli.error_lines import WrongUsageError, memory_advice, resumable
from vistrim.cli.loading_options import Device
from vistrim.cli.output_folders import check_folder
from vistrim.cli.starting import importing
from vistrim.errors import MissingPackageError
from vistrim.evaluation import Question, read_questions

TEXT_TOKENS = 64
MEMORY_ADVICE = "use less --batch, --visual-tokens or --new-tokens, --dtype bfloat16, or fewer --layers (named shapes)"


def bench(
    model: Annotated[
        str,
        typer.Option(
            help=f"Named shape with random weights ({', '.join(SHAPES)}), reference model, local directory or Hugging "
            "Face id.",
            metavar="NAME",
        ),
    ] = "reference",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Trimming method, see `vistrim methods`; repeatable. keep-everything (overhead and gain of the engine "
            "without trimming) and st3 in its closed form by default; 'untouched' for none.",
            metavar="NAME[:KEY=VALUE,...][+...]",
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Decoder layers of a named shape; the real model's by default.")
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, help="Hidden size of a named shape's decoder; the real model's by default.")
    ] = None,
    distinct_layers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Decoder layers of a named shape (and blocks of its tower) with their own weights; the others share "
            "these, which saves memory. Together they should exceed the caches of the CPU. All by default.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples generated at once.")] = 1,
    visual_tokens: Annotated[
        int | None, typer.Option(min=1, help="Visual tokens per sample; those of one typical image by default.")
    ] = None,
    text_tokens: Annotated[
        int | None, typer.Option(min=1, help=f"All other tokens of each prompt; {TEXT_TOKENS} by default.")
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens generated per sample.")] = 32,
    dtype: Annotated[
        str,
        typer.Option(
            help="auto (the checkpoint's own; for a named shape float32 on the CPU and bfloat16 elsewhere), float32, "
            "bfloat16 or float16.",
            metavar="NAME",
        ),
    ] = "auto",
    attn: Annotated[
        str | None,
        typer.Option(
            help="Attention kernel: sdpa, eager, flash_attention_2, ...; the default of transformers by default.",
            metavar="NAME",
        ),
    ] = None,
    device: Device = "auto",
    repeat: Annotated[int, typer.Option(min=1, help="Rounds, in each of which every method runs once.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of torch; its own default if not given.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of runs and results; an interrupted benchmark resumes from it.")
    ] = Path("vistrim-bench"),
    budget: Budget = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Prompts of a trained model instead of noise: the first --batch questions of a file as for `vistrim "
            "eval`. Answers are not needed.",
            metavar="FILE.jsonl",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of the tables.")] = False,
) -> None:
    """Measure trimming methods against the untouched model: time of each phase, KV cache and memory.

    Speed-ups of prefill and decoding are shown with their bounds by FLOPs and bytes.

    Example: vistrim bench --model llava-1.5-7b --layers 8 --method st3 --method st3:preset=compact --out results
    """
    # The cheapest checks come first: torch takes seconds to import, transformers takes longer, and a model longest.
    check_folder(out)
    sizes = {
        "--layers": layers,
        "--hidden": hidden,
        "--distinct-layers": distinct_layers,
        "--visual-tokens": visual_tokens,
        "--text-tokens": text_tokens,
        "--attn": attn,
    }
    asked = None if data is None else _questions(model, data, batch, sizes)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plot needs matplotlib: run `pip install 'vistrim[eval]'`")
    with importing():
        import torch

        from vistrim.benchmark.keep_everything import KEEP_EVERYTHING, KeepEverything
        from vistrim.cli.parsing import parse_methods
    methods = parse_methods(method or [KEEP_EVERYTHING, "st3"], {UNTOUCHED: None, KEEP_EVERYTHING: KeepEverything()})
    check_budget(budget)
    with importing():
        from vistrim._utils.environment import command_line
        from vistrim.benchmark.benching import bench as measured
        from vistrim.cli.models import check_loading, load_model, note_format, note_hub, silence_libraries
        from vistrim.cli.terminal_tables import print_tables
    check_loading(dtype, device)
    if threads is not None:
        torch.set_num_threads(threads)

    silence_libraries()
    # A name without a slash may be a misspelled shape.
    if asked is None and "/" in model:
        note_hub(model)
    with memory_advice(MEMORY_ADVICE), resumable():
        loaded, inputs = (model, None) if asked is None else _prompts(*load_model(model, dtype, device), asked)
        found = measured(
            loaded,
            methods,
            inputs,
            layers=layers,
            hidden=hidden,
            distinct_layers=distinct_layers,
            batch=batch,
            visual_tokens=visual_tokens,
            text_tokens=text_tokens or TEXT_TOKENS,
            new_tokens=new_tokens,
            dtype=dtype,
            attn=attn,
            device=device,
            repeat=repeat,
            budget=budget,
            out=out,
        )
    note_format(found.settings.get("prompts", ""))
    # Imported late: matplotlib is slow to import.
    from vistrim.benchmark.speed_report import write

    content = write(out, found, command_line())
    if as_json:
        typer.echo(json.dumps(content))
    else:
        print_tables(tables(found.rows), [*found.notes(), f"written: {out / 'results.json'}, results.md, results.png"])


def _questions(model: str, data: Path, batch: int, excluded: Mapping[str, Any]) -> list[Question]:
    if model in SHAPES:
        raise WrongUsageError(f"--data needs a trained model with its processor, and {model} has random weights")
    if given := [name for name, value in excluded.items() if value is not None]:
        raise WrongUsageError(f"--data and {given[0]} exclude each other: leave one out")
    found = read_questions(data, answered=False)
    if len(found) < batch:
        raise WrongUsageError(f"{data} has {len(found)} questions: use a --batch of at most {len(found)}")
    return found[:batch]


def _prompts(model: Any, processor: Any, asked: Sequence[Question]) -> tuple[Any, Any]:
    from vistrim.evaluation.item_prompts import format_items

    inputs = format_items(processor, asked)
    return model, inputs.to(model.device, dtype=model.dtype)
