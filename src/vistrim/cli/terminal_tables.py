"""Tables in the terminal, or in what takes its place."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

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
        console.print(drawn(table))
        console.print()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def drawn(table: Table) -> RichTable:
    """The table as rich prints it: numbers to the right and never wrapped, flagged cells in red."""
    shown = RichTable(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left", no_wrap=bool(number), overflow="fold")
    for i, row in enumerate(table.rows):
        shown.add_row(*(Text(cell, style="bold red" if (i, j) in table.flagged else "") for j, cell in enumerate(row)))
    return shown
