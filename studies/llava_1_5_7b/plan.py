"""Models, methods, budgets and benchmarks of the study, and the cells that they make."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vistrim._utils.labels import UNTOUCHED

MODEL = "llava-hf/llava-1.5-7b-hf"
BUDGETS = ("tokens=192", "tokens=128", "tokens=64")
"""Visual tokens per layer in prefill, averaged over the layers, of 576."""
NO_BUDGET = "none"
"""In place of a budget: the method's own settings."""
METHODS = (
    "random",
    "uniform",
    "pool",
    "downsample",
    "fastv",
    "pyramiddrop",
    "sparsevlm",
    "vtw",
    "fastervlm",
    "vispruner",
    "vtc-cls",
    "divprune",
    "divprune:center=true",
    "cdpruner",
    "visionzip",
    "scope",
    "holov",
    "vscan",
    "dart",
    "pvtp",
    "st3",
    "hybrid",
)
"""Methods that need no file made for the model; others are added with ``--method``."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes
    ----------
    name : str
        Heading in the table.
    task : str
        Name in lmms-eval.
    metrics : tuple of str
        Metrics of the task; the score is their sum.
    scale : float
        Factor that makes the score one of 100.
    """

    name: str
    task: str
    metrics: tuple[str, ...] = ("exact_match",)
    scale: float = 100.0


BENCHMARKS = (
    Benchmark("GQA", "gqa"),
    # Without a judge model.
    Benchmark("MMBench", "mmbench_en_dev_static", ("gpt_eval_score",), 1.0),
    Benchmark("MME", "mme", ("mme_perception_score", "mme_cognition_score"), 1.0),
    Benchmark("POPE", "pope", ("pope_f1_score",)),
    Benchmark("TextVQA", "textvqa_val"),
    Benchmark("SQA", "scienceqa_img"),
    Benchmark("VizWiz", "vizwiz_vqa_val"),
    Benchmark("OCRBench", "ocrbench", ("ocrbench_accuracy",)),
)


@dataclass(frozen=True)
class Cell:
    """One method with one budget, or with its own settings, on one benchmark. The untouched model has no budget."""

    method: str
    budget: str | None
    benchmark: Benchmark

    def folder(self, out: Path) -> Path:
        """Folder of its results."""
        names = (self.method, self.budget or NO_BUDGET, self.benchmark.name)
        return out.joinpath(*(re.sub(r"[^\w.=+-]", "_", name) for name in names))


def cells(methods: Sequence[str], budgets: Sequence[str], benchmarks: Sequence[str]) -> list[Cell]:
    """All cells, in the order in which they are measured: the untouched model first, then budget by budget.

    Raises
    ------
    ValueError
        If there is no such benchmark.
    """
    known = {one.name: one for one in BENCHMARKS}
    if unknown := set(benchmarks) - set(known):
        raise ValueError(f"no benchmark {', '.join(sorted(unknown))}: choose {', '.join(known)}")
    values = [None if budget == NO_BUDGET else budget for budget in budgets]
    sides = [(UNTOUCHED, None), *((method, budget) for budget in values for method in methods)]
    return [Cell(method, budget, known[name]) for method, budget in sides for name in benchmarks]
