"""Tables in the terminal, or in what takes its place."""

import sys
from collections.abc import Iterable

from rich.console import Console

from vistrim._utils.tables import Table

PIPE_WIDTH = 140


def table_console() -> Console:
    """Standard output, as wide as tables need where it is no terminal."""
    # A pipe has no width of its own.
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_tables(tables: Iterable[Table], lines: Iterable[str]) -> None:
    """Print tables, and lines of text below them as they are."""
    console = table_console()
    for table in tables:
        console.print(table)
        console.print()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
