"""``vistrim leaderboard``: results of several runs on one page."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.output_folders import check_folder
from vistrim.errors import MissingPackageError

ENDINGS = (".md", ".html", ".htm")


def leaderboard_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of results of `vistrim eval`, `vistrim batch` or lmms-eval with vistrim.", metavar="DIR..."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Page to write: .md or .html. The plot lies beside it.")] = Path(
        "leaderboard.md"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as one JSON object.")] = False,
) -> None:
    """Merge results into one page with a table per protocol and a plot.

    Example: vistrim leaderboard results-a results-b --out leaderboard.html
    """
    _check_page(out)
    # Imported late: torch takes seconds, and --help does not need it.
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the plot needs matplotlib: run `pip install 'vistrim[eval]'`")
    from vistrim.cli.terminal_tables import print_tables
    from vistrim.evaluation.entries import ENTRIES, read_entries
    from vistrim.integrations.lmms.entries import entries_of_lmms_eval
    from vistrim.leaderboard.boards import boards_of
    from vistrim.leaderboard.page import write_page

    entries = []
    for folder in folders:
        of_lmms_eval = [] if (folder / ENTRIES).exists() else entries_of_lmms_eval(folder)
        entries += of_lmms_eval or read_entries(folder)
    boards = boards_of(entries)
    written = ", ".join(map(str, write_page(out, boards)))
    if as_json:
        typer.echo(json.dumps([asdict(board) for board in boards]))
    else:
        print_tables([board.table() for board in boards], [f"written: {written}"])


def _check_page(out: Path) -> None:
    if out.is_dir():
        raise WrongUsageError(f"--out {out} is a folder: name a page in it, such as {out / 'leaderboard.md'}")
    if out.suffix.lower() not in ENDINGS:
        raise WrongUsageError(f"--out {out} has no ending of a page: name it .md or .html")
    check_folder(out.parent)
