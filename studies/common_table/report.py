"""The files made from the results: results.md, the plots, and the section of docs/common-table.md."""

import json
from pathlib import Path
from typing import Any

from studies.common_table.plot import plot, plot_together
from studies.common_table.rows import Row
from studies.common_table.tables import at_budget, budgets_of, overview, reasons, settings, without_budget
from vistrim._utils.files import write_whole
from vistrim.reference.items import NOTE
from vistrim.shipped import NAMES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "common-table.md"

#: Methods that the plot of all methods names.
NAMED = ("uniform", "random", "scope:positions=original", "gsearch", "st3:schedule=auto", "st3", "pool")

DEFINITIONS = """\
* accuracy: as in `vistrim eval`, mean of the tasks of a group; "mean" is the mean of the groups
* to random, to uniform: difference of the mean to this method at the same budget, on the same questions; the interval
  is the 95 % bootstrap interval over images, and all questions about an image are drawn together
* tokens: visual tokens per layer in prefill, mean over layers; FLOPs: prefill and the method's own, as a share of the
  untouched model's; KV mean: bytes as a share of the untouched model's, mean over steps; means of the groups"""


def as_json(content: dict[str, Any]) -> str:
    """Format as JSON with one row per line."""
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {_lines(value)}" for name, value in content.items()) + "\n}\n"


def _lines(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"    {json.dumps(one)}" for one in value) + "\n  ]"
    if isinstance(value, dict):
        inner = ",\n".join(f"    {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items())
        return "{\n" + inner + "\n  }"
    return json.dumps(value)


def read(folder: Path) -> dict[str, Any]:
    """Read the results of a model."""
    content: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return content


def write(folder: Path) -> None:
    """Write results.md and the plots of a model."""
    content = read(folder)
    rows, figures = [Row(**row) for row in content["rows"]], content["figures"]
    tables = [at_budget(budget, rows, figures) for budget in budgets_of(rows)]
    tables.append(without_budget(rows, figures))
    parts = [
        f"# All methods at equal visual tokens: {content['model']}",
        f"```\n{content['command']}\n```",
        _about(content),
        NOTE if content["model"] in NAMES else "",
        "\n".join(f"* {_environment(one)}" for one in content["environments"]),
        *(table.markdown() for table in tables if table.rows),
        "![accuracy against visual tokens](results.png)",
        DEFINITIONS,
        "\n".join(["### Out of reach, or without a file", "", *(f"* {line}" for line in reasons(rows))]),
        "\n".join(["### Methods in full", "", *(f"* {line}" for line in settings(rows))]),
    ]
    write_whole(folder / "results.md", "\n\n".join(part for part in parts if part) + "\n")
    plot(rows, figures, folder / "results.png")
    plot_together(rows, figures, NAMED, folder / "together.png")


def write_docs(folder: Path) -> None:
    """Write the sections of the models into the docs."""
    text = DOCS.read_text(encoding="utf-8")
    for results in sorted(folder.glob("*/results.json")):
        begin, end = markers(results.parent.name)
        if begin not in text:
            raise ValueError(f"{DOCS} has no place for {results.parent.name}: add the lines {begin} and {end}")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{section(read(results.parent))}\n{end}{rest.split(end)[1]}"
    write_whole(DOCS, text)


def markers(model: str) -> tuple[str, str]:
    """Lines around the section of a model."""
    return f"<!-- results of {model}: written by studies.common_table.measure -->", f"<!-- end of {model} -->"


def section(content: dict[str, Any]) -> str:
    """Section of the docs: the summary of a model's results."""
    rows, figures = [Row(**row) for row in content["rows"]], content["figures"]
    results = f"../studies/common_table/results/{content['model']}"
    _, _, *table = overview(rows, figures).markdown().splitlines()
    groups = " / ".join(figures["untouched"]["groups"])
    waiting = set(budgets_of(rows)) - set(budgets_of([row for row in rows if row.name in figures]))
    own = without_budget(rows, figures).markdown().splitlines()
    missing = "\n".join(f"* {line}" for line in reasons(rows))
    parts = [
        f"{_about(content)} Each cell has the accuracy in %: {groups}. Bold: the highest mean of these. ▲: higher than "
        "both `random` and `uniform`; ▼: lower than `random`, each by the 95 % interval of the difference. —: out of "
        f"reach, see below. Figures with intervals, FLOPs and KV cache are in [results.md]({results}/results.md).",
        "\n".join(table),
        f"Not run yet: {', '.join(f'{100 * budget:g} %' for budget in sorted(waiting))}." if waiting else "",
        f"![accuracy against visual tokens]({results}/results.png)",
        "Methods without a budget, at their own setting:",
        "\n".join(own[2:]),
        f"Rows without figures:\n\n{missing}" if missing else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _about(content: dict[str, Any]) -> str:
    return f"{content['questions']} questions per task, {content['images']} images, test split. {_releases(content)}"


def _releases(content: dict[str, Any]) -> str:
    """Releases of transformers of the rows. Rows of others than the most frequent are named."""
    rows = [Row(**row) for row in (content["untouched"], *content["rows"])]
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.questions:
            releases = dict.fromkeys(content["environments"][number]["transformers"] for number in row.environments)
            names.setdefault(" and ".join(releases), []).append(f"`{row.name}`")
    most, *others = sorted(names, key=lambda releases: -len(names[releases]))
    exceptions = [f"{releases}: {', '.join(names[releases])}" for releases in others]
    return f"Run with transformers {'; '.join([most, *exceptions])}."


def _environment(one: dict[str, Any]) -> str:
    names = ("processor", "threads", "python", "torch", "transformers", "vistrim", "commit")
    return ", ".join(f"{name} {one[name]}" for name in names)
