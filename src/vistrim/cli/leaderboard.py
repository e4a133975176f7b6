"""``vistrim leaderboard``: results of several runs on one page."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vistrim.errors import MissingPackageError


def leaderboard_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of results of `vistrim eval`, `vistrim batch` or lmms-eval with vistrim.", metavar="DIR..."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Page to write, HTML or Markdown by its ending; the plot lies beside it.")
    ] = Path("leaderboard.md"),
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as one JSON object.")] = False,
) -> None:
    """Merge results into one page with a table per protocol and a plot.

    Example: vistrim leaderboard results-a results-b --out leaderboard.html
    """
    # Imported late: torch takes seconds, and --help does not need it.
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plot needs matplotlib: run `pip install 'vistrim[eval]'`")
    from vistrim.cli.terminal_tables import print_tables
    from vistrim.leaderboard.boards import read_boards
    from vistrim.leaderboard.page import write_page

    boards = read_boards(folders)
    written = ", ".join(map(str, write_page(out, boards)))
    if as_json:
        typer.echo(json.dumps([asdict(board) for board in boards]))
    else:
        print_tables([board.table() for board in boards], [f"written: {written}"])
