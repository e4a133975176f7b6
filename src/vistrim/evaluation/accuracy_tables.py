"""The tables of an evaluation, for the terminal and as Markdown."""

from collections.abc import Sequence

from vistrim._utils.tables import Table
from vistrim.evaluation.accuracy_summary import Figures, Interval, Row, groups_of

COLUMNS = ("method", "accuracy", "retained [95 %]", "agree", "tokens", "FLOPs", "KV mean", "KV peak")
ALL_COLUMNS = (*COLUMNS, "exited", "items", "errors")
"""With the columns that are shown only if a guide model answered alone, or if an item failed."""


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table per group of tasks, then accuracy task by task."""
    tasks = list(dict.fromkeys(task for row in rows for task in row.tasks))
    lines = [(row.label, *(_percent(row.tasks.get(task)) for task in tasks)) for row in rows]
    return [
        *(_group_table(group, rows) for group in groups_of(rows)),
        Table("Accuracy task by task, %", ("method", *tasks), lines),
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """Full notation of each label, and warnings about the figures; one line each."""
    cut = [
        f"{row.label}, {group}: {100 * (1 - figures.ended):.1f} % of the answers were cut off; raise --max-new-tokens"
        for row in rows
        for group, figures in row.groups.items()
        if figures.ended < 1
    ]
    return [f"{row.label} = {row.method}" for row in rows if row.label != row.method] + cut


def _group_table(group: str, rows: Sequence[Row]) -> Table:
    known = [row.groups[group] for row in rows if group in row.groups]
    title = f"{group}: {known[0].items} items, answers of {known[0].new_tokens:.1f} tokens"
    exits = any(figures.exited for figures in known)
    # After failures, rows may cover different items.
    failed = any(row.errors[group] for row in rows)
    columns = COLUMNS + ("exited",) * exits + ("items", "errors") * failed
    lines = [dict(zip(ALL_COLUMNS, _line(row, group), strict=True)) for row in rows]
    return Table(title, columns, [tuple(line[column] for column in columns) for line in lines])


def _line(row: Row, group: str) -> tuple[str, ...]:
    figures, errors = row.groups.get(group), str(row.errors[group])
    if figures is None:
        return (row.label, *["none"] * len(ALL_COLUMNS[1:-1]), errors)
    return (
        row.label,
        "none" if figures.accuracy is None else f"{100 * figures.accuracy:.1f} %",
        _retained(figures.retained, figures.retained_interval),
        f"{100 * figures.agreement:.1f} %",
        f"{figures.average_tokens:.1f}",
        f"1/{figures.flops_ratio:.2f}",
        f"{100 * figures.kv_mean:.1f} %",
        f"{100 * figures.kv_peak:.1f} %",
        f"{100 * figures.exited:.1f} %",
        str(figures.items),
        errors,
    )


def _retained(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return "none"
    return f"{100 * value:.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _percent(figures: Figures | None) -> str:
    return "none" if figures is None or figures.accuracy is None else f"{100 * figures.accuracy:.1f}"
