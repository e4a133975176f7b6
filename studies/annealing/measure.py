"""Annealing that does not forget: what ranks while decoding, at equal mean KV cache.

    python -m studies.annealing.measure --model reference --questions 20 --out results/annealing

asks the untouched model and every variant of `vta` and `st3` the same descriptions and short questions. At horizon 64,
`vta` is set to its budget by the floor and `st3` by the share that each cut drops (`vistrim.at_budget`), for
descriptions as long as those of the untouched model. All variants are compared with the literal reading of the paper,
which ranks by the current token, in pairs of the same images.

The folder has every answer (``samples.jsonl``), ``results.json`` and ``results.md``. The same command resumes. A larger
``--questions`` only adds questions; ``--variant``, ``--vta`` and ``--st3`` (budgets) only add rows. The default
questions are those of the validation split, from which a default may be chosen; evidence needs ``--split test``.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console

from studies.annealing import report
from studies.annealing.rows import BUDGETS, Row, resolved, wanted
from studies.record import portable
from vistrim import load
from vistrim._utils.environment import stamp
from vistrim._utils.files import write_whole
from vistrim._utils.labels import UNTOUCHED
from vistrim.engine import describe
from vistrim.evaluation import Records, answer_all
from vistrim.evaluation.items import Item
from vistrim.evaluation.typical_inputs import typical_inputs
from vistrim.loading import identity
from vistrim.methods.base.notation import as_method
from vistrim.reference.suites import questions

DESCRIPTION = "description"


def run(options: argparse.Namespace) -> None:
    """Answer what is missing, and write the results."""
    console = Console(stderr=True, highlight=False)
    model, processor = load(options.model)
    # Images are drawn once for all rows.
    items = [replace(item, image=cache(item.image)) for item in asked(options)]
    described = [item for item in items if item.task.name == DESCRIPTION]
    sizes = {"batch_size": options.batch_size, "max_new_tokens": options.max_new_tokens}
    settings = {"max_new_tokens": options.max_new_tokens, "split": options.split, "seed": options.seed}
    path = options.out / "results.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    rows = {row.key: row for row in (Row(**row) for row in known["rows"])}
    with Records(options.out / "samples.jsonl", {**identity(model, processor), **settings}) as records:
        answer_all(model, processor, {}, items, records, **sizes)
        # A row keeps its method when questions are added.
        lengths = [sample.new_tokens for item in described if (sample := records.sample(UNTOUCHED, item.id))]
        new_tokens = known.get("answer_tokens") or round(fmean(lengths))
        depth, inputs = describe(model).facts.decoder.layers, typical_inputs(processor, described)
        for row in wanted(options.variant, {"vta": options.vta, "st3": options.st3}):
            if rows.get(row.key, row).method is None:
                rows[row.key] = resolved(row, model, depth, inputs, new_tokens)
        content = {
            "command": shlex.join(["python", "-m", "studies.annealing.measure", *map(portable, options.given)]),
            "model": options.model,
            "settings": settings,
            "answer_tokens": new_tokens,
            "rows": [asdict(row) for row in rows.values()],
            "environment": stamp(),
        }
        _write(path, content)
        for row in rows.values():
            if row.method is not None:
                began = time.monotonic()
                answer_all(model, processor, {row.name: as_method(row.method)}, items, records, **sizes)
                console.print(f"{row.name}: {time.monotonic() - began:.0f} s", markup=False)
        _write(path, content | report.figures(records, items, list(rows.values())))


def asked(options: argparse.Namespace) -> list[Item]:
    """List the questions. A larger number only adds some to each task."""
    return questions(options.model, options.tasks, split=options.split, limit=options.questions, seed=options.seed)


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--questions", type=int, default=40, help="per task")
    parser.add_argument("--tasks", default=f"{DESCRIPTION},short", help=f"has to contain {DESCRIPTION}")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--seed", type=int, default=0, help="which questions")
    parser.add_argument("--variant", action="append", default=[], help="label; repeatable; all by default")
    for base, kv in BUDGETS.items():
        parser.add_argument(f"--{base}", type=float, default=kv, help=f"mean KV fraction of {base}")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parser.parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else list(arguments)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    options = read_options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    run(options)
    report.write(options.out)


if __name__ == "__main__":
    main()
