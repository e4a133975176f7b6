"""The table of the measured cells: ``python -m studies.llava_1_5_7b.table --out FOLDER``."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from studies.llava_1_5_7b.measure import RESULTS, options_of
from studies.llava_1_5_7b.plan import Benchmark, Cell, cells
from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.tables import Table
from vistrim.integrations.lmms.results import read_results

COSTS = {
    "tokens": ("visual_tokens_per_layer", 1.0),
    "FLOPs, %": ("prefill_flops_share", 100.0),
    "KV, %": ("kv_share", 100.0),
}
"""Heading to figure of the results and factor."""


@dataclass(frozen=True)
class Measured:
    """Score of a cell, and its costs by heading."""

    score: float
    costs: dict[str, float]


def read(path: Path, benchmark: Benchmark) -> Measured:
    """Read the results of a cell."""
    (found,) = read_results(path)
    costs = {heading: factor * found.costs[name] for heading, (name, factor) in COSTS.items()}
    return Measured(benchmark.scale * sum(found.scores[name] for name in benchmark.metrics), costs)


def tables(wanted: Sequence[Cell], out: Path) -> list[Table]:
    """One table per budget, with the untouched model in each. Cells without results are dashes."""
    found = {cell: read(path, cell.benchmark) for cell in wanted if (path := cell.folder(out) / RESULTS).exists()}
    benchmarks = list(dict.fromkeys(cell.benchmark for cell in wanted))
    columns = ("method", *(one.name for one in benchmarks), "retained, %", *COSTS)
    budgets = list(dict.fromkeys(cell.budget for cell in wanted if cell.method != UNTOUCHED))
    methods = list(dict.fromkeys(cell.method for cell in wanted if cell.method != UNTOUCHED))
    full = {one: found.get(Cell(UNTOUCHED, None, one)) for one in benchmarks}

    def row(method: str, budget: str | None) -> tuple[str, ...]:
        own = {one: found.get(Cell(method, budget, one)) for one in benchmarks}
        pairs = [(got.score, base.score) for one in benchmarks if (got := own[one]) and (base := full[one])]
        # A mean over fewer benchmarks than in other rows could not be compared.
        is_complete = len(pairs) == len(benchmarks) and all(base for _, base in pairs)
        scores = [f"{got.score:.1f}" if (got := own[one]) else "–" for one in benchmarks]
        retained = f"{100 * mean(score / base for score, base in pairs):.1f}" if is_complete else "–"
        measured = [got for got in own.values() if got]
        costs = [f"{mean(got.costs[heading] for got in measured):.1f}" if measured else "–" for heading in COSTS]
        return (method, *scores, retained, *costs)

    return [
        Table(budget or "own settings", columns, [row(UNTOUCHED, None), *(row(method, budget) for method in methods)])
        for budget in budgets
    ]


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables and write them to ``table.md`` in the folder."""
    options: argparse.Namespace = options_of(given)
    wanted = cells([*options.methods, *options.method], options.budgets, options.benchmarks)
    text = "\n\n".join(table.markdown() for table in tables(wanted, options.out)) + "\n"
    (options.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
