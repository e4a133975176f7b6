"""How often a guide may answer alone: exit rate against accuracy, for every threshold at once.

Every question is answered once by the guide alone, with its exit score S, and once by the model that it guides. What a
threshold would have given follows from these: the guide's answer where S is above it, else the model's. Next to it
stands what the same number of exits would give on average if they were drawn by lot: what S knows is the difference.

    python -m studies.exits.measure --limit 100 --out studies/exits/results/exit-reference
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from studies.record import record
from vistrim import SGL, TrimReport, load, trim
from vistrim._utils.tables import Table
from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import Item
from vistrim.prompting import format_prompts
from vistrim.reference.items import EVALUATED, items

RATES = [i / 10 for i in range(11)]
"""Exit rates that are shown."""


@dataclass(frozen=True)
class Question:
    """One question, answered by both.

    Attributes
    ----------
    task, item : str
        What was asked.
    exit_score : float
        S of the guide's answer.
    guide, guided, untouched : float
        Score of the guide's answer, of the guided model's and of the model's own.
    guide_flops, guided_flops, full_flops : float
        FLOPs of the guide, exit score included; of the guided model's prefill; and of the untouched one's.
    """

    task: str
    item: str
    exit_score: float
    guide: float
    guided: float
    untouched: float
    guide_flops: float
    guided_flops: float
    full_flops: float


@dataclass(frozen=True)
class Mix:
    """What a threshold gives in a group of tasks; accuracies are means of the tasks.

    Attributes
    ----------
    threshold : float
        Exit where S is above it.
    exit_rate : float
        Share of the questions that the guide answers alone.
    accuracy : float
        Of the answers returned.
    by_lot : float
        Expected if as many questions of each task exited by lot.
    flops_ratio : float
        FLOPs of the untouched model's prefill over those of guide and guided prefill.
    """

    threshold: float
    exit_rate: float
    accuracy: float
    by_lot: float
    flops_ratio: float


def mix(questions: Sequence[Question], threshold: float) -> Mix:
    """Return the guide's answers above a threshold and the model's below it."""
    tasks = {task: [q for q in questions if q.task == task] for task in dict.fromkeys(q.task for q in questions)}
    rates = {task: mean(q.exit_score > threshold for q in asked) for task, asked in tasks.items()}

    def over_tasks(figure: Any) -> float:
        return mean(mean(figure(q, task) for q in asked) for task, asked in tasks.items())

    spent = over_tasks(lambda q, _: q.guide_flops + (0 if q.exit_score > threshold else q.guided_flops))
    return Mix(
        threshold=threshold,
        exit_rate=mean(rates.values()),
        accuracy=over_tasks(lambda q, _: q.guide if q.exit_score > threshold else q.guided),
        by_lot=over_tasks(lambda q, task: rates[task] * q.guide + (1 - rates[task]) * q.guided),
        flops_ratio=over_tasks(lambda q, _: q.full_flops) / spent,
    )


def thresholds(questions: Sequence[Question], rates: Sequence[float]) -> list[float]:
    """Thresholds above which about these shares of the questions lie, falling."""
    # As S is never above 1, a threshold of 1 lets nothing exit.
    falling = [1.0, *sorted({q.exit_score for q in questions}, reverse=True), 0.0]
    above = [mean(q.exit_score > threshold for q in questions) for threshold in falling]
    nearest = (min(range(len(falling)), key=lambda i: abs(above[i] - rate)) for rate in rates)
    return [falling[i] for i in dict.fromkeys(nearest)]


@torch.no_grad()
def ask(model: Any, processor: Any, batch: Sequence[Item], method: SGL, longest: int) -> tuple[list[float], TrimReport]:
    """Scores of the answers to some questions, and the report on them."""
    inputs = format_prompts(processor, [item.prompt for item in batch], [[item.image()] for item in batch])
    inputs = inputs.to(model.device, dtype=model.dtype)
    with trim(model, method) as run:
        output = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
    texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [item.score(text) for item, text in zip(batch, texts, strict=True)], run.report


def both(model: Any, processor: Any, guide: Any, batch: Sequence[Item], options: argparse.Namespace) -> list[Question]:
    """Let the guide, the guided model and the model alone answer some questions of one task."""
    cut = (options.layer_fraction, options.keep_ratio)
    alone, exits = ask(model, processor, batch, SGL(guide, *cut, exit_threshold=0.0), options.max_new_tokens)
    guided, report = ask(model, processor, batch, SGL(guide, *cut), options.max_new_tokens)
    untouched = answer(model, processor, batch, None, options.max_new_tokens)
    return [
        Question(
            task=item.task.name,
            item=item.id,
            exit_score=exits.exit_scores[b],
            guide=alone[b],
            guided=guided[b],
            untouched=item.score(untouched[b].answer),
            guide_flops=exits.method_flops[b],
            guided_flops=report.prefill_flops_per_sample[b],
            full_flops=untouched[b].prefill_flops_full,
        )
        for b, item in enumerate(batch)
    ]


def table(group: str, questions: Sequence[Question], mixes: Sequence[Mix]) -> Table:
    """Figures of a group of tasks."""
    guide, untouched = mix(questions, 0.0).accuracy, mean_of_tasks(questions)
    rows: list[tuple[str, ...]] = [
        (
            f"{m.threshold:.4f}",
            f"{100 * m.exit_rate:.1f} %",
            f"{100 * m.accuracy:.1f} %",
            f"{100 * m.by_lot:.1f} %",
            f"1/{m.flops_ratio:.2f}" if m.flops_ratio >= 1 else f"{1 / m.flops_ratio:.2f}",
        )
        for m in mixes
    ]
    title = (
        f"{group}: {len(questions)} items; the model alone {100 * untouched:.1f} %, the guide alone {100 * guide:.1f} %"
    )
    return Table(title, ("threshold", "exit rate", "accuracy", "exits by lot", "FLOPs"), rows)


def mean_of_tasks(questions: Sequence[Question]) -> float:
    """Accuracy of the untouched model."""
    tasks = dict.fromkeys(q.task for q in questions)
    return mean(mean(q.untouched for q in questions if q.task == task) for task in tasks)


def plot(groups: dict[str, tuple[list[Question], list[Mix]]], path: Path) -> None:
    """Draw accuracy against exit rate and against FLOPs."""
    figure = Figure(figsize=(4.5 * len(groups), 7), layout="constrained")
    panels = figure.subplots(2, len(groups), squeeze=False)
    for column, (group, (questions, mixes)) in enumerate(groups.items()):
        for axes, label, values in (
            (panels[0][column], "exit rate, %", [100 * m.exit_rate for m in mixes]),
            (panels[1][column], "FLOPs, % of the untouched prefill", [100 / m.flops_ratio for m in mixes]),
        ):
            axes.plot(values, [100 * m.accuracy for m in mixes], "o-", label="exits by score")
            axes.plot(values, [100 * m.by_lot for m in mixes], ":", color="C1", label="exits by lot")
            axes.axhline(100 * mean_of_tasks(questions), color="gray", linestyle="--", label="untouched model")
            axes.set_xlabel(label)
            axes.set_ylabel("accuracy, %")
            axes.set_title(group)
            axes.grid(alpha=0.3)
    panels[0][0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--guide", default="reference-small")
    parser.add_argument("--layer-fraction", type=float, default=0.4)
    parser.add_argument("--keep-ratio", type=float, default=0.4)
    parser.add_argument("--limit", type=int, default=20, help="questions per task")
    parser.add_argument("--split", default="test", choices=["test", "validation"], help="easy-vqa has no validation")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json, results.md and results.png")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, processor = load(options.model)
    guide, _ = load(options.guide, dtype=model.dtype, device=str(model.device))

    questions: list[Question] = []
    tasks = list(EVALUATED)
    for task in track(tasks, "tasks", console=Console(stderr=True)):
        if options.split == "validation" and task == "easy-vqa":
            continue
        asked = items(task, options.split, "full", options.limit)
        for start in range(0, len(asked), options.batch_size):
            questions += both(model, processor, guide, asked[start : start + options.batch_size], options)

    groups = {}
    for group in dict.fromkeys(task.group for task in EVALUATED.values()):
        if found := [q for q in questions if EVALUATED[q.task].group == group]:
            groups[group] = found, [mix(found, threshold) for threshold in thresholds(found, RATES)]
    written = [table(group, *figures).markdown() for group, figures in groups.items()]
    folder = options.out
    options.out = folder / "results.json"
    sweep = {group: [asdict(m) for m in mixes] for group, (_, mixes) in groups.items()}
    record(options, sweep=sweep, questions=[asdict(q) for q in questions])
    command = (
        f"python -m studies.exits.measure --model {options.model} --guide {options.guide} --limit {options.limit} "
        f"--layer-fraction {options.layer_fraction} --keep-ratio {options.keep_ratio} --split {options.split}"
    )
    parts = [f"# Early exit of {options.model}, guided by {options.guide}", f"```\n{command} --out {folder}\n```"]
    text = "\n\n".join([*parts, *written, "![accuracy against exits](results.png)"]) + "\n"
    (folder / "results.md").write_text(text)
    plot(groups, folder / "results.png")
    Console(width=140).print(text, markup=False)


if __name__ == "__main__":
    main()
