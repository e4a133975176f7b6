"""Tables of formatted text for the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable


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

    def __rich__(self) -> RichTable:
        """Format for rich: numbers right-aligned and not wrapped, flagged cells in red."""
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            shown.add_column(column, justify="right" if number else "left", no_wrap=bool(number), overflow="fold")
        for i, row in enumerate(self.rows):
            cells = (Text(cell, style="bold red" if (i, j) in self.flagged else "") for j, cell in enumerate(row))
            shown.add_row(*cells)
        return shown

    def _emphasized(self) -> Iterator[list[str]]:
        for i, row in enumerate(self.rows):
            yield [f"**{cell}**" if (i, j) in self.flagged else cell for j, cell in enumerate(row)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
