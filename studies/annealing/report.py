"""Figures and tables of the comparison."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.annealing.rows import LITERAL, Row
from studies.common_table.figures import difference, draws, rounded
from vistrim._utils.files import write_whole
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.tables import Table
from vistrim.evaluation import Records, summarize
from vistrim.evaluation.accuracy_summary import RESAMPLES
from vistrim.evaluation.items import Item

SHOWN = ("accuracy", "accuracy_interval", "retained", "retained_interval", "agreement", "new_tokens", "kv_mean")
"""Figures of a group of tasks that are stored."""
DEFINITIONS = f"""\
* retained: accuracy divided by the untouched model's on the same items, with the 95 % bootstrap interval
  ({RESAMPLES} draws)
* to literal: difference of accuracy to the literal reading ("{LITERAL}") of the same table, in points, with the 95 %
  bootstrap interval; images are drawn, the same for both
* KV mean: bytes as a share of the untouched model's, mean over steps; planned: predicted by `vistrim.at_budget` for
  typical descriptions
* all variants of a table drop equally many tokens at equal steps, except for those with floors per layer, `pvtp` and
  `uniform`"""


def figures(records: Records, items: Sequence[Item], rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of the untouched model and of all rows that have answers.

    Parameters
    ----------
    records : Records
        The answers.
    items : sequence of Item
        The questions. Those that a row could not answer are left out.
    rows : sequence of Row
        The rows.

    Returns
    -------
    dict
        ``"questions"`` per group of tasks, ``"images"``, and ``"figures"`` by the name of the row.
    """
    methods = {row.name: row.method for row in rows if row.method}
    names = (UNTOUCHED, *methods.values())
    items = [item for item in items if all(records.sample(name, item.id) for name in names)]
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.task.group, []).append(item)
    drawn = {group: draws(records, own, {UNTOUCHED: UNTOUCHED, **methods}) for group, own in groups.items()}
    found: dict[str, Any] = {
        row.label: {group: _stored(each) for group, each in row.groups.items()}
        for row in summarize(records, items, methods)
    }
    for row in rows:
        literal = Row(row.base, LITERAL, row.kv).name
        if row.method and literal in methods and row.label != LITERAL:
            for group, means in drawn.items():
                found[row.name][group]["to_literal"] = difference(means[row.name] - means[literal])
    return {
        "questions": {group: len(own) for group, own in groups.items()},
        "images": len({item.image_id for item in items}),
        "figures": found,
    }


def write(folder: Path) -> None:
    """Write results.md from results.json."""
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = [Row(**row) for row in content["rows"]]
    asked = ", ".join(f"{group}: {number}" for group, number in content["questions"].items())
    settings = ", ".join(f"{name} {value}" for name, value in content["settings"].items())
    environment = content["environment"]
    names = ("processor", "threads", "python", "torch", "transformers", "vistrim", "commit")
    missing = [f"* {row.name}: {row.reason}" for row in rows if row.reason]
    parts = [
        f"# Ways to anneal at equal KV cache: {content['model']}",
        f"```\n{content['command']}\n```",
        f"Questions: {asked}; {content['images']} images; {settings}. Budgets are for answers of "
        f"{content['answer_tokens']} tokens.",
        ", ".join(f"{name} {environment[name]}" for name in names),
        *(table(base, kv, rows, content["figures"]).markdown() for base, kv in dict.fromkeys(_tables(rows))),
        DEFINITIONS,
        "\n".join(["### Out of reach", "", *missing]) if missing else "",
        "\n".join(["### Methods in full", "", *(f"* {row.name}: `{row.method}`" for row in rows if row.method)]),
    ]
    write_whole(folder / "results.md", "\n\n".join(part for part in parts if part) + "\n")


def table(base: str, kv: float, rows: Sequence[Row], found: Mapping[str, Any]) -> Table:
    """One line per variant of a table, with the untouched model first."""
    groups = list(found[UNTOUCHED])
    columns = [name for group in groups for name in (f"{group}, %", "retained", "to literal", "KV mean")]
    ran = [row for row in rows if (row.base, row.kv) == (base, kv) and row.name in found]
    lines = [(UNTOUCHED, "", *_cells(found[UNTOUCHED], groups))]
    lines += [(row.label, f"{100 * (row.reached or 0):.1f} %", *_cells(found[row.name], groups)) for row in ran]
    return Table(f"{base} at a mean KV fraction of {kv:g}", ("", "planned", *columns), lines)


def _tables(rows: Sequence[Row]) -> list[tuple[str, float]]:
    return [(row.base, row.kv) for row in rows if row.method]


def _cells(of_row: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    return [cell for group in groups for cell in _group(of_row[group])]


def _group(figures: Mapping[str, Any]) -> tuple[str, ...]:
    retained = ""
    if figures["retained"] is not None:
        low, high = figures["retained_interval"]
        retained = f"{100 * figures['retained']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    compared = ""
    if "to_literal" in figures:
        value, low, high = (100 * each for each in figures["to_literal"])
        compared = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"{100 * figures['accuracy']:.1f}", retained, compared, f"{100 * figures['kv_mean']:.1f} %"


def _stored(group: Any) -> dict[str, Any]:
    return {name: rounded(getattr(group, name)) for name in SHOWN}
