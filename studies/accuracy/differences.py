"""Differences of accuracy between methods of one evaluation, in pairs, with bootstrap intervals over images.

    python -m studies.accuracy.differences FOLDER --to uniform --to random

reads ``results.json`` and ``samples.jsonl`` of ``vistrim eval --out FOLDER`` and writes ``FOLDER/differences.md``: for
each method and group of tasks, its accuracy minus that of another method on the same questions, in points. Questions
about an image are drawn together.

The samples are kept in ``samples.jsonl.gz``, and unpacked from it where ``samples.jsonl`` is missing, so that more
methods can be added to the evaluation later: with ``--unpack``, nothing else is done.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from studies.common_table.figures import difference, draws
from studies.common_table.samples import pack, unpack
from vistrim._utils.files import write_whole
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.tables import Table
from vistrim.evaluation import Records
from vistrim.evaluation.items import Item
from vistrim.reference.suites import questions

ASKED = ("split", "level", "limit", "seed", "images")
"""Settings of an evaluation that choose its questions."""


def compare(folder: Path, others: Sequence[str], without: Sequence[str] = ()) -> Table:
    """Compare all methods with some.

    Parameters
    ----------
    folder : Path
        Folder of an evaluation.
    others : sequence of str
        Names of methods to compare with, as given on the command line.
    without : sequence of str
        Tasks to leave out, such as those that the untouched model only guesses.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    settings = results["settings"]
    asked = questions(settings["model"], settings["tasks"], **{name: settings[name] for name in ASKED})
    groups: dict[str, list[Item]] = {}
    for item in (item for item in asked if item.task.name not in without):
        groups.setdefault(item.task.group, []).append(item)
    methods = {each["label"]: each["method"] for each in results["methods"]}
    compared = {other: _label(other, list(methods)) for other in others}
    rows: dict[str, list[str]] = {label: [f"`{label}`"] for label in methods if label != UNTOUCHED}
    with Records(folder / "samples.jsonl", {}) as records:
        for items in groups.values():
            drawn = draws(records, items, methods)
            for label, row in rows.items():
                row.append(f"{100 * drawn[label][0]:.1f}")
                for other in compared.values():
                    found = (100 * value for value in difference(drawn[label] - drawn[other]))
                    row.append("" if label == other else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*found))
    header = ["method", *(name for group in groups for name in (f"{group}, %", *(f"to {other}" for other in others)))]
    return Table("Accuracy, and difference in points", tuple(header), [tuple(row) for row in rows.values()])


def _label(name: str, labels: Sequence[str]) -> str:
    found = [label for label in labels if label.split(" ")[0] == name]
    if len(found) != 1:
        raise SystemExit(f"{name} is not one of the methods: {', '.join(labels)}")
    return found[0]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", action="append", default=[], help="method to compare with; repeatable")
    parser.add_argument("--without", action="append", default=[], help="task to leave out, into a file of its own")
    parser.add_argument("--unpack", action="store_true", help="only unpack the samples")
    options = parser.parse_args()
    store, packed = options.folder / "samples.jsonl", options.folder / "samples.jsonl.gz"
    if packed.exists() and not store.exists():
        unpack(packed, store)
    if options.unpack:
        return
    results = json.loads((options.folder / "results.json").read_text(encoding="utf-8"))
    pack(store, packed, [row["method"] for row in results["methods"] if row["label"] != UNTOUCHED])
    given = [f"--{name} {value}" for name in ("to", "without") for value in getattr(options, name)]
    command = f"python -m studies.accuracy.differences {options.folder.as_posix()} {' '.join(given)}"
    text = f"```\n{command}\n```\n\n{compare(options.folder, options.to, options.without).markdown()}\n"
    file = "-".join(["differences", *(["without", *options.without] if options.without else [])])
    write_whole(options.folder / f"{file}.md", text)
    print(text)


if __name__ == "__main__":
    main()
