"""Tables of formatted text for the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table as RichTable

LABEL_SHARE = 3
"""Divisor of the width of a terminal: longer labels in the first column are wrapped if there is no room for them."""


@dataclass(frozen=True)
class Table:
    """A table of formatted text.

    Attributes
    ----------
    title : str
    columns : tuple of str
        Headings. The first column is text, the others are numbers.
    rows : list of tuple of str
        Cells.
    flagged : frozenset of (int, int)
        Row and column of highlighted cells: bold in Markdown, red in the terminal.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    flagged: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        """Format as Markdown."""
        align = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = (_line(cells) for cells in (self.columns, align, *self._emphasized()))
        return "\n".join([f"### {self.title}", "", *lines])

    def text(self) -> str:
        """Format as plain text in columns."""
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [self.title]
        for first, *others in (self.columns, *self.rows):
            numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
            lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
        return "\n".join(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        # Columns that do not fit beside each other come below, in further tables with the first column repeated.
        from rich.cells import cell_len
        from rich.table import Table as RichTable
        from rich.text import Text

        cells = [[self.columns[j], *(row[j] for row in self.rows)] for j in range(len(self.columns))]
        natural = [max(map(cell_len, column)) for column in cells]
        # A heading wraps between words, a number never.
        whole = [max(map(cell_len, [*column[0].split(), *column[1:]]), default=0) for column in cells]
        first = min(natural[0], max(options.max_width // LABEL_SHARE, cell_len(self.columns[0])))
        least = [first, *whole[1:]]
        for number, shown in enumerate(_side_by_side(least, options.max_width)):
            spare = options.max_width - _table_width([least[j] for j in shown])
            table = RichTable(title=None if number else self.title, title_justify="left")
            for j in shown:
                more = min(max(spare, 0), natural[j] - least[j])
                spare -= more
                justify: Literal["left", "right"] = "right" if j else "left"
                table.add_column(self.columns[j], justify=justify, width=least[j] + more, overflow="fold")
            for i, row in enumerate(self.rows):
                table.add_row(*(Text(row[j], style="bold red" if (i, j) in self.flagged else "") for j in shown))
            yield table

    def _emphasized(self) -> Iterator[list[str]]:
        for i, row in enumerate(self.rows):
            yield [f"**{cell}**" if (i, j) in self.flagged else cell for j, cell in enumerate(row)]


def _side_by_side(widths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Columns of each table, every one with the first column."""
    shown = [0]
    for column in range(1, len(widths)):
        if len(shown) > 1 and _table_width([widths[j] for j in (*shown, column)]) > most:
            yield shown
            shown = [0]
        shown.append(column)
    yield shown


def _table_width(columns: Sequence[int]) -> int:
    """Width of a table in characters: each column has a line and two spaces."""
    return sum(columns) + 3 * len(columns) + 1


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
