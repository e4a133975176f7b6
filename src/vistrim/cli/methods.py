"""``vistrim methods``: the capability table, of all methods or for one model."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vistrim.cli.errors import FAILED
from vistrim.cli.models import quiet_libraries
from vistrim.methods import list_methods
from vistrim.methods.base import notation
from vistrim.support import ModelSupport, describe_support

NOTE = (
    "ST³ has no official code: the formulas of st3, pvtp and vta are this project's reading of the paper, "
    "and their default values and presets (balanced, compact) are this project's own choice. G-Search and P-Sigmoid "
    "have none either: what is searched, and how, is this project's reading."
)


def methods(
    model: Annotated[
        str | None,
        typer.Option(
            help="Say which methods run on this model: a reference model, local directory or Hugging Face id. Only its "
            "configuration is read; no weights are downloaded.",
            metavar="NAME",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List the trimming methods: where they act, their parameters, what they need, where they come from."""
    if model is not None:
        quiet_libraries()
        _show_support(describe_support(model), as_json)
        return
    found = list_methods()
    if as_json:
        typer.echo(json.dumps({"methods": [asdict(info) for info in found], "note": NOTE}))
        return
    table = Table("method", "what it does", "parameters", show_lines=True)
    for info in found:
        facts = (
            info.summary,
            f"[dim]acts in:[/] {', '.join(info.stages)}",
            f"[dim]needs:[/] {info.needs}",
            f"[dim]KV cache:[/] {info.kv_cache}",
            f"[dim]source:[/] {info.source}",
        )
        parameters = (f"{name}={notation(value)}" for name, value in info.parameters.items())
        table.add_row(f"[bold]{info.name}[/]", "\n".join(facts), "\n".join(parameters))
    console = Console(highlight=False)
    console.print(table)
    console.print(NOTE)


def _show_support(support: ModelSupport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(support)))
    else:
        console = Console(highlight=False, markup=False)
        console.print(f"{support.model}: {support.architecture} ({support.model_type})")
        if support.reason:
            console.print(f"cannot be trimmed: {support.reason}")
        else:
            _show_model(console, support)
    if support.reason:
        raise typer.Exit(FAILED)


def _show_model(console: Console, support: ModelSupport) -> None:
    sliding, window = support.windows
    layers = f"{support.layers} layers, {sliding} of them with windows from {window} tokens on" if sliding else None
    facts = (
        layers or f"{support.layers} layers",
        f"{support.hidden} wide, {support.heads} heads, {support.kv_heads} of keys and values",
        "M-RoPE" if support.rope_axes > 1 else "RoPE",
        f"reads {' and '.join(f'{modality}s' for modality in support.modalities)}",
        "{} x {} visual tokens per picture".format(*support.grid) if support.grid else "images of several sizes",
        "tested with vistrim" if support.tested else "its structure is known, but it was not tested with vistrim",
    )
    console.print("; ".join(facts))
    table = Table("method", "runs", "")
    for method in support.methods:
        needed = ", ".join(f"{name}={notation(value)}" for name, value in method.parameters.items())
        table.add_row(method.name, "yes" if method.works else "no", method.reason or (needed and f"with {needed}"))
    console.print(table)
