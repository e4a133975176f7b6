"""The command line application: its commands and global options."""

import io
import sys
from functools import partial
from typing import Annotated

import typer

from vistrim._utils.releases import check_release
from vistrim._version import __version__
from vistrim.cli.analyze import analyze_command
from vistrim.cli.batch import batch_command
from vistrim.cli.bench import bench
from vistrim.cli.calibrate import app as calibrate
from vistrim.cli.check import check_command
from vistrim.cli.commands import Command
from vistrim.cli.demo import demo
from vistrim.cli.error_lines import OneLineErrors
from vistrim.cli.eval import evaluate_command
from vistrim.cli.leaderboard import leaderboard_command
from vistrim.cli.methods import methods
from vistrim.cli.run import run
from vistrim.cli.serve import serve

app = typer.Typer(cls=OneLineErrors, add_completion=False, pretty_exceptions_enable=False)
command = partial(app.command, cls=Command)
command()(run)
command()(methods)
command("eval")(evaluate_command)
command("batch")(batch_command)
command()(bench)
command("leaderboard")(leaderboard_command)
command("check")(check_command)
command("analyze")(analyze_command)
command()(serve)
command()(demo)
app.add_typer(calibrate, name="calibrate")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vistrim {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def vistrim(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Trim visual tokens in multimodal language models: faster prefill, smaller KV cache, no retraining."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        check_release()


def main() -> None:
    """Run the command line; the console entry point."""
    # In a process started without standard output, it is None.
    sys.stdout = sys.stdout or io.StringIO()
    # An answer may have characters that the terminal's encoding lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    app(prog_name="vistrim")
