"""The option ``--budget``, with one grammar for all commands."""

from typing import Annotated

import typer

from vistrim.cli.error_lines import WrongUsageError

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
