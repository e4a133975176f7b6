"""Tables of the results, as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from studies.common_table.rows import BASELINES, Row
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.tables import Table

Figures = Mapping[str, Any]
ABOVE, BELOW = "▲", "▼"
NOT_YET = "not run yet"
COSTS = ("average_tokens", "flops_share", "kv_mean")


def overview(rows: Sequence[Row], figures: Figures) -> Table:
    """One line per method, and one column per budget: accuracy of each group of tasks, in %."""
    budgets, groups = budgets_of([row for row in rows if row.name in figures]), list(figures[UNTOUCHED]["groups"])
    labels = sorted({row.label for row in rows if row.asked is not None}, key=_order)
    found = {row.key: row for row in rows}
    lines = [(UNTOUCHED, *[_percents(figures[UNTOUCHED])] * len(budgets))]
    lines += [(f"`{label}`", *(_cell(found.get((label, budget)), figures) for budget in budgets)) for label in labels]
    means = [
        [(_mean(found.get((label, budget)), figures), line) for line, label in enumerate(labels, 1)]
        for budget in budgets
    ]
    best = frozenset(
        (line, column)
        for column, of_budget in enumerate(means, 1)
        for mean, line in of_budget
        if mean is not None and mean == max(other for other, _ in of_budget if other is not None)
    )
    title = " / ".join(groups)
    return Table(f"{title}, accuracy in %", ("tokens", *(f"{100 * budget:g} %" for budget in budgets)), lines, best)


def at_budget(budget: float, rows: Sequence[Row], figures: Figures) -> Table:
    """All rows of one budget, the most accurate one first."""
    ran = [row for row in rows if row.asked == budget and row.name in figures]
    ran.sort(key=lambda row: -figures[row.name]["mean"])
    return _detailed(f"{100 * budget:g} % of the visual tokens per layer", ran, figures)


def without_budget(rows: Sequence[Row], figures: Figures) -> Table:
    """The untouched model, and the methods that run at their own setting."""
    untouched = Row(UNTOUCHED, None, UNTOUCHED)
    ran = [row for row in rows if row.asked is None and row.name in figures]
    return _detailed("Untouched model, and methods without a budget", [untouched, *ran], figures)


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why rows have no figures, one line per method."""
    missing: dict[str, list[Row]] = {}
    for row in rows:
        if not row.method and row.reason:
            missing.setdefault(row.label, []).append(row)
    return [_missing(missing[label]) for label in sorted(missing, key=_order)]


def settings(rows: Sequence[Row]) -> list[str]:
    """The method that each row ran, in full."""
    ran = sorted((row for row in rows if row.method), key=lambda row: (_order(row.label), -(row.asked or 0)))
    return [f"`{row.name}`: `{row.method}`" for row in ran]


def budgets_of(rows: Sequence[Row]) -> list[float]:
    """All budgets, the largest first."""
    return sorted({row.asked for row in rows if row.asked is not None}, reverse=True)


def _detailed(title: str, ran: Sequence[Row], figures: Figures) -> Table:
    groups = list(figures[UNTOUCHED]["groups"])
    columns = ("method", *groups, "mean", "to random [95 %]", "to uniform [95 %]", "tokens", "FLOPs", "KV mean")
    lines = []
    for row in ran:
        found = figures[row.name]
        costs = [fmean(group[name] for group in found["groups"].values()) for name in COSTS]
        lines.append(
            (
                f"`{row.label}`",
                *(f"{100 * found['groups'][group]['accuracy']:.1f}" for group in groups),
                f"{100 * found['mean']:.1f}",
                _difference(found, "random"),
                _difference(found, "uniform"),
                f"{costs[0]:.1f}",
                *(f"{100 * share:.1f} %" for share in costs[1:]),
            )
        )
    return Table(title, columns, lines)


def _difference(found: Mapping[str, Any], other: str) -> str:
    if other not in found.get("against", {}):
        return ""
    difference, low, high = (100 * value for value in found["against"][other])
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def _cell(row: Row | None, figures: Figures) -> str:
    if row is None or row.name not in figures:
        return "—" if row is not None and row.reason else NOT_YET
    return " ".join([_percents(figures[row.name]), *_marks(figures[row.name])])


def _marks(found: Mapping[str, Any]) -> Iterator[str]:
    against = found.get("against", {}).values()
    if against and all(low > 0 for _, low, _ in against):
        yield ABOVE
    elif against and any(high < 0 for _, _, high in list(against)[:1]):
        yield BELOW


def _percents(found: Mapping[str, Any]) -> str:
    return " / ".join(f"{100 * group['accuracy']:.0f}" for group in found["groups"].values())


def _mean(row: Row | None, figures: Figures) -> float | None:
    return figures[row.name]["mean"] if row is not None and row.name in figures else None


def _missing(rows: Sequence[Row]) -> str:
    budgets = ", ".join(f"{100 * row.asked:g} %" for row in rows if row.asked is not None)
    return f"`{rows[0].label}`{' at ' if budgets else ''}{budgets}: {rows[0].reason}"


def _order(label: str) -> tuple[int, str]:
    """The baselines first, then the others by name."""
    name = label.split(":")[0]
    return (BASELINES.index(name) if name in BASELINES else len(BASELINES), label)
