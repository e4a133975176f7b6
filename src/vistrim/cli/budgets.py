"""The option ``--budget``, with one grammar for all commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistrim.cli.error_lines import WrongUsageError

if TYPE_CHECKING:
    from vistrim.methods import Method

KINDS = (
    "tokens (mean visual tokens per layer: share or number), flops (share of the prefill) or kv (share of the KV "
    "cache), as in tokens=0.33."
)
Budget = Annotated[
    str | None, typer.Option("--budget", help=f"Set each method to a budget: {KINDS}", metavar="KIND=VALUE")
]
ScheduleBudget = Annotated[
    str, typer.Option("--budget", help=f"Budget that the schedule has to meet: {KINDS}", metavar="KIND=VALUE")
]


def check_budget(budget: str | None) -> None:
    """Refuse text that is no budget before the model is loaded.

    Raises
    ------
    WrongUsageError
        If it is none.
    """
    # Imported late: torch takes seconds, and --help does not need it.
    from vistrim.methods.base.budgeted import read_budget

    try:
        if budget is not None:
            read_budget(budget)
    except ValueError as error:
        raise WrongUsageError(f"--budget: {error}") from error


def set_methods(
    methods: Mapping[str, Method], model: Any, budget: str, inputs: Any, new_tokens: int
) -> dict[str, Method]:
    """Set methods to the budget of a command, and print what they reach on standard error.

    Parameters
    ----------
    methods, model, budget, inputs, new_tokens
        See `vistrim.budgeting.set_to_budget`.

    Raises
    ------
    ParameterError
        If a method cannot be set to the budget.
    """
    from vistrim.budgeting import set_to_budget

    found = set_to_budget(methods, model, budget, inputs=inputs, new_tokens=new_tokens)
    for label, each in found.items():
        typer.echo(f"note: {label}: {each.summary}", err=True)
    return {label: each.method for label, each in found.items()}
