"""``vistrim methods``: the table of methods, or the support for one model."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from vistrim.cli.error_lines import WrongUsageError

NOTE = (
    "ST³ has no official code: the formulas of st3, pvtp and vta are this project's reading of the paper, and their "
    "default values and presets (balanced, compact, annealed) are this project's own choice. G-Search and P-Sigmoid "
    "have no official code either: their objectives and searches are this project's reading."
)

OWN_READING = ("st3", "pvtp", "vta", "gsearch", "psigmoid")
"""The methods that the note is about."""


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method alone.", metavar="NAME")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Show the methods that run on this reference model, local directory or Hugging Face id; only the "
            "config is read.",
            metavar="NAME",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List the trimming methods with their stages, parameters, requirements and sources.

    Example: vistrim methods st3
    """
    # Imports torch, but not transformers.
    from vistrim.methods import list_methods
    from vistrim.methods.base.parameter_text import write_value
    from vistrim.methods.base.registry import find_method

    try:
        shown = [info for info in list_methods() if name is None or info.name == find_method(name).name]
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    if model is not None:
        _show_support(model, {info.name for info in shown}, as_json)
        return
    if as_json:
        rows = [asdict(info) | {"parameters": _plain(info.parameters)} for info in shown]
        typer.echo(json.dumps({"methods": rows, "note": NOTE}))
        return
    table = Table(
        Column("method", no_wrap=True),
        Column("summary", overflow="fold"),
        Column("parameters", overflow="fold"),
        show_lines=True,
    )
    for info in shown:
        facts = {
            "acts in": ", ".join(info.stages),
            "needs": info.needs,
            "KV cache": info.kv_cache,
            "source": info.source,
        }
        # A method of another package may leave some of it empty.
        lines = [f"[dim]{label}:[/] {escape(fact)}" for label, fact in facts.items() if fact]
        parameters = "\n".join(f"{name}={write_value(value)}" for name, value in info.parameters.items())
        table.add_row(
            f"[bold]{info.name}[/]", "\n".join([escape(info.summary)] * bool(info.summary) + lines), escape(parameters)
        )
    console = Console(highlight=False)
    console.print(table)
    if any(info.name in OWN_READING for info in shown):
        console.print(NOTE)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON values; methods and files in the notation."""
    from vistrim.methods.base.parameter_text import write_value

    plain = (bool, int, float, str, tuple, type(None))
    return {name: value if isinstance(value, plain) else write_value(value) for name, value in parameters.items()}


def _show_support(model: str, names: Collection[str], as_json: bool) -> None:
    """Print the support of methods for a model."""
    from vistrim.cli.models import describe_model
    from vistrim.cli.support_tables import facts_table, methods_table

    found = describe_model(model)
    found = replace(found, methods=tuple(method for method in found.methods if method.name in names))
    if as_json:
        facts = asdict(found)
        typer.echo(json.dumps({"methods": facts.pop("methods"), "model": facts}))
        return
    console = Console(highlight=False)
    console.print(facts_table(found))
    console.print(methods_table(found))
