"""Tables of finished text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A table of finished text.

    Attributes
    ----------
    title : str
    columns : tuple of str
        Headings; the first column is text, the others are numbers.
    rows : list of tuple of str
        Cells.
    flagged : frozenset of (int, int)
        Row and column of the cells that stand for bad news: bold in Markdown, red in the terminal.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    flagged: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        """As Markdown."""
        align = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = (_line(cells) for cells in (self.columns, align, *self._emphasised()))
        return "\n".join([f"### {self.title}", "", *lines])

    def text(self) -> str:
        """As plain text, in columns."""
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [self.title]
        for first, *others in (self.columns, *self.rows):
            numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
            lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
        return "\n".join(lines)

    def __rich__(self) -> RichTable:
        """In the terminal: numbers to the right and never wrapped, flagged cells in red."""
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            shown.add_column(column, justify="right" if number else "left", no_wrap=bool(number), overflow="fold")
        for i, row in enumerate(self.rows):
            cells = (Text(cell, style="bold red" if (i, j) in self.flagged else "") for j, cell in enumerate(row))
            shown.add_row(*cells)
        return shown

    def _emphasised(self) -> Iterator[list[str]]:
        for i, row in enumerate(self.rows):
            yield [f"**{cell}**" if (i, j) in self.flagged else cell for j, cell in enumerate(row)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
