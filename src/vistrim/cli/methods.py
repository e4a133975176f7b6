"""``vistrim methods``: the capability table, or what one model supports."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
    # Needs torch; a list of methods needs no transformers.
    from vistrim.methods import list_methods
    from vistrim.methods.base.parameter_text import write_value

    found = list_methods()
    if as_json:
        rows = [asdict(info) | {"parameters": _plain(info.parameters)} for info in found]
        typer.echo(json.dumps({"methods": rows, "note": NOTE}))
        return
    table = Table("method", "what it does", "parameters", show_lines=True)
    for info in found:
        facts = {
            "acts in": ", ".join(info.stages),
            "needs": info.needs,
            "KV cache": info.kv_cache,
            "source": info.source,
        }
        # Another distribution's method may leave some of it out.
        lines = [f"[dim]{label}:[/] {escape(fact)}" for label, fact in facts.items() if fact]
        parameters = "\n".join(f"{name}={write_value(value)}" for name, value in info.parameters.items())
        table.add_row(
            f"[bold]{info.name}[/]", "\n".join([escape(info.summary)] * bool(info.summary) + lines), escape(parameters)
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(NOTE)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them, or in the notation: methods and files."""
    from vistrim.methods.base.parameter_text import write_value

    plain = (bool, int, float, str, tuple, type(None))
    return {name: value if isinstance(value, plain) else write_value(value) for name, value in parameters.items()}


def _show_support(model: str, as_json: bool) -> None:
    """What a model supports."""
    from vistrim.cli.models import describe_model
    from vistrim.cli.support_tables import facts_table, methods_table

    found = describe_model(model)
    if as_json:
        facts = asdict(found)
        typer.echo(json.dumps({"methods": facts.pop("methods"), "model": facts}))
        return
    console = Console(highlight=False)
    console.print(facts_table(found))
    console.print(methods_table(found))
