"""Tables of finished text, for the terminal and for Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


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

    def _emphasised(self) -> Iterator[list[str]]:
        for i, row in enumerate(self.rows):
            yield [f"**{cell}**" if (i, j) in self.flagged else cell for j, cell in enumerate(row)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
