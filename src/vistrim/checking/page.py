"""The results in a terminal of rich."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from vistrim.checking.results import CheckReport

STYLES = {"passed": "green", "failed": "bold red", "not possible": "yellow", "measured": "cyan"}


def page(report: CheckReport) -> Iterator[Table | Text]:
    """Lay out one row for each check, then the settings and the verdict."""
    table = Table(title=f"vistrim check: {report.model}", title_justify="left", show_lines=True)
    table.add_column("check", overflow="fold", ratio=2)
    table.add_column("result", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=3)
    for outcome in report.outcomes:
        table.add_row(Text(outcome.title), Text(outcome.status, style=STYLES[outcome.status]), Text(outcome.detail))
    yield table
    yield Text(report.settings(), style="dim")
    yield Text(report.verdict, style="green" if report.passed else "bold red")
