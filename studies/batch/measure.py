"""Prompts per second of `vistrim batch`, untouched and trimmed in one run.

Both sides answer the same batches of drawn questions in turn, the other side first in every second batch, so that drift
of the machine's speed affects both alike. Reading images, the processor and scoring count; loading the model does not.

    python -m studies.batch.measure --model reference-lm --questions 200 --out studies/batch/results/reference-lm.json
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from studies.record import record
from vistrim._utils.labels import UNTOUCHED
from vistrim.batching.predictor import Predictor, columns, outcome, rows_of
from vistrim.evaluation.items import Item
from vistrim.evaluation.records import Answer
from vistrim.reference.suites import questions


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference-lm")
    parser.add_argument("--method", action="append", help="default: st3")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--tasks", default="color,kind,lookup,description", help="asked equally often")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    items = draw(options.model, options.tasks.split(","), options.questions)
    methods = (UNTOUCHED, *(options.method or ["st3"]))
    predictors = {
        method: Predictor(options.model, method, device="cpu", max_new_tokens=options.max_new_tokens)
        for method in methods
    }
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    answers: dict[str, list[Answer]] = {method: [] for method in methods}
    for predictor in predictors.values():
        # Loads the model, and warms up.
        predictor(columns(items[: options.batch_size]))
    starts = range(0, len(items), options.batch_size)
    for number, start in enumerate(track(starts, "batches", console=Console(stderr=True))):
        batch = items[start : start + options.batch_size]
        first = number % len(methods)
        for method in (*methods[first:], *methods[:first]):
            given, taken = ask(predictors[method], batch)
            answers[method] += given
            seconds[method].append(taken)
    figures = {method: summary(method, items, seconds, answers) for method in methods}
    record(options, figures=figures, seconds=seconds)
    text = table(figures, len(items))
    options.out.with_suffix(".md").write_text(text)
    print(text)


def draw(model: str, tasks: Sequence[str], number: int) -> list[Item]:
    """Draw so many questions of the test split, of the tasks in turn, so that short and long answers share batches."""
    each = {task: iter(questions(model, task, limit=-(-number // len(tasks)))) for task in tasks}
    return [next(each[task]) for task, _ in zip(cycle(tasks), range(number), strict=False)]


def ask(predictor: Predictor, items: Sequence[Item]) -> tuple[list[Answer], float]:
    """Answer one batch: the answers, and the seconds.

    Raises
    ------
    RuntimeError
        If a question has no answer.
    """
    began = time.perf_counter()
    found = predictor(columns(items))
    taken = time.perf_counter() - began
    rows = [outcome(row) for row in rows_of(found)]
    if failed := [row for row in rows if isinstance(row, str)]:
        raise RuntimeError(failed[0])
    return [row for row in rows if isinstance(row, Answer)], taken


def summary(
    method: str, items: Sequence[Item], seconds: Mapping[str, list[float]], answers: Mapping[str, list[Answer]]
) -> dict[str, Any]:
    """Figures of one side. The ratio is the median over batches of the untouched side's time to this side's."""
    own, untouched = seconds[method], seconds[UNTOUCHED]
    return {
        "prompts_per_second": len(items) / sum(own),
        "of_untouched": statistics.median(a / b for a, b in zip(untouched, own, strict=True)),
        "average_tokens": statistics.fmean(answer.average_tokens for answer in answers[method]),
        "score": statistics.fmean(
            item.score(answer.answer) for item, answer in zip(items, answers[method], strict=True)
        ),
    }


def table(figures: Mapping[str, dict[str, Any]], prompts: int) -> str:
    """Return the table, in Markdown."""
    lines = [
        f"{prompts} prompts:",
        "",
        "| method | visual tokens per layer | prompts/s | of untouched, median of the batches | score, % |",
        "|---|---|---|---|---|",
    ]
    for method, row in figures.items():
        cells = (
            method,
            f"{row['average_tokens']:.0f}",
            f"{row['prompts_per_second']:.2f}",
            f"{row['of_untouched']:.2f}x",
            f"{100 * row['score']:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
