"""A first look at accuracy on the reference model: untouched, ST³ and baselines on the same test questions.

Few questions and no intervals: an impression, not a result.

    python -m benchmarks.accuracy --out benchmarks/results/cpu/accuracy-reference.json
"""

import argparse
import json
import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.environment import stamp
from vistrim import PVTP, ST3, VTA, Pool, Random, Uniform, load, trim
from vistrim.methods.base import Method
from vistrim.reference.evaluation import evaluate
from vistrim.reference.scenes import LEVELS
from vistrim.reference.tasks import SHORT_TASKS

METHODS: dict[str, Method | None] = {
    "untouched": None,
    "st3 balanced": ST3.preset("balanced"),
    "st3 compact": ST3.preset("compact"),
    "pvtp": PVTP(),
    "vta": VTA(),
    "uniform at balanced's tokens": Uniform(0.417),
    "random at balanced's tokens": Random(0.417),
    "uniform at compact's tokens": Uniform(0.247),
    "random at compact's tokens": Random(0.247),
    "pool at compact's tokens": Pool(0.25),
}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=25, help="questions per task")
    parser.add_argument("--level", choices=list(LEVELS), default="full")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, processor = load("reference", dtype="float32", device="cpu")
    visual_tokens = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2

    rows: dict[str, dict[str, Any]] = {}
    table = Table("", "average tokens", "short questions", "description facts", title="Right, % (test split)")
    for name, method in track(METHODS.items(), "methods", console=Console(stderr=True)):
        with trim(model, method) if method else nullcontext() as run:
            scores = evaluate(
                model, processor, "test", LEVELS[options.level], options.number, (*SHORT_TASKS, "description")
            )
        tokens = run.report.average_tokens if run else visual_tokens
        short = statistics.mean(scores[task] for task in SHORT_TASKS)
        rows[name] = {"average_tokens": tokens, "short": short, "method": str(method), "tasks": scores}
        table.add_row(name, f"{tokens:.1f}", f"{100 * short:.1f}", f"{100 * scores['description']:.1f}")
    Console().print(table)
    if options.out:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"environment": stamp(), "settings": settings, "results": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
