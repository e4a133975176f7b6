"""Report as a table for rich."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text


def rich_table(rows: Sequence[tuple[str, str]], warnings: Sequence[str]) -> Iterator[Table | Text]:
    """Create a table of labels and values, followed by warnings."""
    table = Table(title="vistrim report", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label), Text(value))
    yield table
    for warning in warnings:
        yield Text(f"warning: {warning}", style="yellow")
