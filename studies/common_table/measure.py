"""One table of all methods at equal visual tokens per layer.

    python -m studies.common_table.measure --model reference --questions 100

asks the untouched model and every registered method, set to every budget by `vistrim.at_budget`, the same questions.
``results/MODEL/`` has every answer (``samples.jsonl.gz``), ``results.json``, ``results.md`` and ``results.png``, and
``docs/common-table.md`` the summary. Rows that exist are not run again: the same command resumes, new methods only add
rows, and a larger ``--questions`` only adds questions. It may be interrupted at any time, and ``--minutes`` ends it
after a row. Rows may come from different releases of transformers; the tables tell which. ``--report`` writes the
tables and the plot again.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from studies.common_table import report
from studies.common_table.figures import figures
from studies.common_table.rows import Row, resolved, wanted
from studies.common_table.samples import pack, unpack
from vistrim import Method, load
from vistrim._utils.environment import stamp
from vistrim._utils.files import write_whole
from vistrim._utils.labels import UNTOUCHED
from vistrim.errors import ResumeError, VistrimError
from vistrim.evaluation import Records, answer_all
from vistrim.evaluation.items import Item
from vistrim.loading import identity
from vistrim.reference.suites import questions

FOLDER = Path(__file__).parent / "results"
VERSIONS = ("vistrim", "transformers")
QUESTIONS = 100
TASKS = "short,description,easy-vqa"


class Study:
    """The results of one model: rows, environments, and the stored samples.

    Parameters
    ----------
    folder : Path
        Folder of the results.
    options : argparse.Namespace
        Options of the command.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.options = folder, options
        self.store, self.packed = folder / "samples.jsonl", folder / "samples.jsonl.gz"
        self.path = folder / "results.json"
        self.content: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.rows = [Row(**row) for row in self.content.get("rows", ())]
        untouched = Row(UNTOUCHED, None, UNTOUCHED, method=UNTOUCHED)
        self.untouched = Row(**self.content.get("untouched", asdict(untouched)))
        self.environments: list[dict[str, Any]] = self.content.get("environments", [])
        self.questions: int = options.questions or self.content.get("questions", QUESTIONS)
        if self.packed.exists() and not self.store.exists():
            unpack(self.packed, self.store)

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows that the table does not have yet."""
        known = {row.key for row in self.rows}
        self.rows += [row for row in rows if row.key not in known]

    def row(self, like: Row) -> Row:
        """The row for a method and a budget."""
        return next(row for row in self.rows if row.key == like.key)

    def put(self, row: Row) -> None:
        """Replace a row."""
        if row.label == UNTOUCHED:
            self.untouched = row
        self.rows = [row if old.key == row.key else old for old in self.rows]
        self._write({})

    @cached_property
    def environment(self) -> int:
        """Number of the environment of this run."""
        now = {name: value for name, value in stamp().items() if name != "date"}
        if now not in self.environments:
            self.environments.append(now)
        return self.environments.index(now)

    def save(self) -> None:
        """Pack the samples, and write the figures of all rows over the questions that all of them answered."""
        pack(self.store, self.packed, [row.method for row in self.rows if row.method])
        number = min((row.questions for row in self.rows if row.questions), default=self.questions)
        command = f"python -m studies.common_table.measure --model {self.options.model} --questions {number}"
        found = {"model": self.options.model, "command": command, "questions": number}
        with Records(self.store, {}) as records:
            self._write(found | figures(records, asked(self.options, number), self.rows))

    def _write(self, found: dict[str, Any]) -> None:
        rows = [asdict(row) for row in self.rows]
        own = {"environments": self.environments, "untouched": asdict(self.untouched), "rows": rows}
        self.content |= {**found, **own}
        write_whole(self.path, report.as_json(self.content))


def run(options: argparse.Namespace) -> None:
    """Answer what is missing, and write the results."""
    start = time.monotonic()
    console = Console(stderr=True, highlight=False)
    model, processor = load(options.model)
    study = Study(options.out / options.model, options)
    chosen = wanted(options.model, options.method, options.budgets)
    study.add(chosen)
    # Images are drawn once for all rows.
    items = [replace(item, image=cache(item.image)) for item in asked(options, study.questions)]
    # Each row has its environments: one of a later version adds to the others.
    settings = {name: value for name, value in identity(model, processor).items() if name not in VERSIONS}
    settings |= {"max_new_tokens": options.max_new_tokens, "tasks": options.tasks}
    with Records(study.store, settings) as records:
        for row in [study.untouched, *map(study.row, chosen)]:
            if row.questions >= study.questions:
                continue
            if row.label != UNTOUCHED and time.monotonic() - start > 60 * options.minutes:
                console.print("time is over")
                break
            found, method = (row, None) if row.label == UNTOUCHED else resolved(row, model)
            if found.method:
                began = time.monotonic()
                begun = replace(found, environments=tuple(dict.fromkeys((*found.environments, study.environment))))
                # Answers of a run that is interrupted remain.
                study.put(begun)
                failure = _answer(model, processor, method, items, records, options)
                if failure:
                    found = replace(found, method=None, reached=None, reason=failure)
                else:
                    found = replace(begun, questions=study.questions)
                console.print(f"{found.name}: {time.monotonic() - began:.0f} s", markup=False)
            study.put(found)
    study.save()


def _answer(
    model: Any,
    processor: Any,
    method: Method | None,
    items: Sequence[Item],
    records: Records,
    options: argparse.Namespace,
) -> str | None:
    """Answer the questions; returns the reason if the method cannot."""
    sizes = {"batch_size": options.batch_size, "max_new_tokens": options.max_new_tokens}
    try:
        answer_all(model, processor, {} if method is None else {"method": method}, items, records, **sizes)
    except ResumeError:
        # The row exists, and a file of its method or the model has changed.
        raise
    except (VistrimError, ValueError) as error:
        return " ".join(str(error).split())
    failures = [failure for item in items if (failure := records.failure(str(method), item.id))]
    return f"{len(failures)} questions cannot be answered: {failures[0].error}" if failures else None


def asked(options: argparse.Namespace, number: int) -> list[Item]:
    """List the questions. A larger number only adds some to each task."""
    return questions(options.model, options.tasks, limit=number)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--method", action="append", default=[], help="name or notation; repeatable; all by default")
    parser.add_argument(
        "--budgets",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[0.5, 0.33, 0.22, 0.11],
        help="visual tokens per layer, as shares of all; with commas between them",
    )
    parser.add_argument("--questions", type=int, help=f"per task; {QUESTIONS}, or as many as the table has")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no row is begun after this time")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results of all models")
    parser.add_argument("--report", action="store_true", help="only write the tables, the plot and the docs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    options = read_options(arguments)
    torch.set_num_threads(options.threads)
    if not options.report:
        run(options)
    report.write(options.out / options.model)
    if options.out == FOLDER:
        report.write_docs(FOLDER)


if __name__ == "__main__":
    main()
