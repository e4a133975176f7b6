"""The results in a terminal of rich."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

STYLES = {"passed": "green", "failed": "bold red", "not possible": "yellow", "measured": "cyan"}


def page(
    title: str, rows: Sequence[tuple[str, ...]], settings: str, verdict: str, passed: bool
) -> Iterator[Table | Text]:
    """Lay out one row for each check (title, status, detail), then the settings and the verdict."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("check", overflow="fold", ratio=2)
    table.add_column("result", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=3)
    for checked, status, detail in rows:
        table.add_row(Text(checked), Text(status, style=STYLES[status]), Text(detail))
    yield table
    yield Text(settings, style="dim")
    yield Text(verdict, style="green" if passed else "bold red")
