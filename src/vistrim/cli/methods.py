"""``vistrim methods``: the capability table, or what one model supports."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vistrim.cli.models import describe_model
from vistrim.cli.support_tables import facts_table, methods_table
from vistrim.methods import list_methods
from vistrim.methods.base.method import notation

NOTE = (
    "ST³ has no official code: the formulas of st3, pvtp and vta are this project's reading of the paper, "
    "and their default values and presets (balanced, compact) are this project's own choice. G-Search and P-Sigmoid "
    "have none either: what is searched, and how, is this project's reading."
)


def methods(
    model: Annotated[
        str | None,
        typer.Option(
            help="Say which methods run on this reference model, local directory or Hugging Face id; "
            "only its config is read.",
            metavar="NAME",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List the trimming methods: where they act, their parameters, what they need, where they come from."""
    if model is not None:
        _show_support(model, as_json)
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


def _show_support(model: str, as_json: bool) -> None:
    """What a model supports."""
    found = describe_model(model)
    if as_json:
        facts = asdict(found)
        typer.echo(json.dumps({"methods": facts.pop("methods"), "model": facts}))
        return
    console = Console(highlight=False)
    console.print(facts_table(found))
    console.print(methods_table(found))
