"""Tables in the terminal, or in a pipe or file."""

import sys
from collections.abc import Iterable

from rich.console import Console

from vistrim._utils.tables import Table

PIPE_WIDTH = 140


def table_console(markup: bool = True) -> Console:
    """Standard output, wide enough for the tables if it is not a terminal."""
    # A pipe has no width.
    return Console(highlight=False, markup=markup, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_tables(tables: Iterable[Table], lines: Iterable[str]) -> None:
    """Print tables, and lines of text below them without wrapping."""
    console = table_console()
    for table in tables:
        console.print(table)
        console.print()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
