"""``vistrim calibrate``: fit schedules, routers and masks of methods to a model."""

from functools import partial

import typer

from vistrim.cli.calibrate.dyvte import dyvte
from vistrim.cli.calibrate.gsearch import gsearch
from vistrim.cli.calibrate.psigmoid import psigmoid
from vistrim.cli.calibrate.st3 import st3
from vistrim.cli.calibrate.yopo import yopo
from vistrim.cli.commands import Command

app = typer.Typer()
command = partial(app.command, cls=Command)
command()(gsearch)
command()(psigmoid)
command()(st3)
command()(dyvte)
command()(yopo)


@app.callback(invoke_without_command=True)
def calibrate(context: typer.Context) -> None:
    """Fit a method to a model: search a schedule, train routers, or choose heads."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


__all__ = ["app"]
