"""How close every method comes to the speed-up that stock decoder layers allow for its row counts on this machine.

A matrix product of few rows has fixed costs (reading and packing the weights), so that time does not fall in proportion
to FLOPs. Here, the prefill of the untouched model and of every method is timed in turn. Right after each, single stock
layers are timed with as many rows as the layers of that prefill had, without engine, cache and selection. Their sum
over the depth is the least time that the prefill can take on this machine; the ratio of the sums, untouched to trimmed,
is the largest speed-up, and the share of it that is reached is what the engine is responsible for.

The time of a prefill includes the choice of the tokens, but not the vision tower.

    python -m studies.rows.measure --layers 8 --out studies/rows/results/llava-1.5-7b-8-layers.json
    python -m studies.rows.measure --method pvtp --method fastv --out studies/rows/results/llava-1.5-7b.json
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from studies import llava
from studies.record import record
from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.paired import in_turn, time_generation
from vistrim.engine import describe
from vistrim.methods.base.notation import as_method
from vistrim.trimming import prepare_trim

METHODS = (
    "pvtp",
    "st3",
    "st3:preset=compact",
    "hybrid",
    "fastv",
    "pyramiddrop",
    "sparsevlm:layers=1/2/4",
    "vtw:layer=4",
    "dart",
    "psigmoid:mean_keep=0.33,kappa=0.2",
    "fastervlm",
    "vispruner",
    "vtc-cls:first_layer=1",
    "visionzip",
    "divprune",
    "cdpruner",
    "scope",
    "holov",
    "vscan",
    "random",
    "uniform",
    "pool",
    "downsample",
    "blind",
)
"""All methods that change nothing but the number of rows, and need no file or second model; at least 6 layers."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    llava.add_options(parser)
    parser.add_argument("--distinct-layers", type=int, default=8, help="layers with their own weights")
    parser.add_argument("--method", action="append", help="repeatable; all that change the rows alone by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=8, help="timed stock layers per number of rows, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)

    subject = llava.make(options, options.layers, distinct=min(options.layers, options.distinct_layers))
    spec, layers = describe(subject.model), StockLayers(subject.model.get_decoder(), options.repeats)
    sides = {UNTOUCHED: None} | {name: as_method(name) for name in options.method or METHODS}
    for method in sides.values():
        if method is not None:
            prepare_trim(subject.model, method)
    rows: dict[str, list[int]] = {UNTOUCHED: [options.text_tokens + options.visual_tokens] * options.layers}

    def timed(label: str, number: int) -> tuple[float, float]:
        run = time_generation(subject.model, spec, sides[label], subject.inputs, do_sample=False, max_new_tokens=1)
        if run.report is not None:
            rows[label] = [options.text_tokens + n for (n,) in run.report.visual_tokens_per_layer]
        return run.times.prefill, layers.seconds(rows[label])

    timed(UNTOUCHED, 0)
    turns = in_turn(timed, list(sides), range(options.rounds))
    found: dict[str, list[tuple[float, float]]] = {label: [] for label in sides}
    steps = options.rounds * len(sides)
    for _, label, seconds in track(turns, "runs", total=steps, console=Console(stderr=True)):
        found[label].append(seconds)
    results = [summary(label, rows[label], found[UNTOUCHED], found[label]) for label in sides]
    Console().print(table(results))
    record(options, rows=results)


class StockLayers:
    """Times stock decoder layers alone, with any number of rows."""

    def __init__(self, decoder: Any, repeats: int) -> None:
        self._decoder, self._repeats, self._turns = decoder, repeats, count()

    @torch.no_grad()
    def seconds(self, rows: Sequence[int]) -> float:
        """Sum over the depth; equal layers are timed up to ``repeats`` times."""
        total = 0.0
        for n, times in Counter(rows).items():
            repeats = min(times, self._repeats)
            total += sum(self._layer(n) for _ in range(repeats)) * times / repeats
        return total

    def _layer(self, n: int) -> float:
        # In turn, so that no weights stay in the processor's cache.
        layer = self._decoder.layers[next(self._turns) % len(self._decoder.layers)]
        hidden = torch.randn(1, n, self._decoder.config.hidden_size)
        rotary = self._decoder.rotary_emb(hidden, position_ids=torch.arange(n)[None])
        began = time.perf_counter()
        layer(hidden, position_embeddings=rotary)
        return time.perf_counter() - began


def summary(
    label: str, rows: Sequence[int], untouched: Sequence[tuple[float, float]], trimmed: Sequence[tuple[float, float]]
) -> dict[str, object]:
    """Medians over the rounds; speed-ups are ratios within each round."""
    reached = [before / after for (before, _), (after, _) in zip(untouched, trimmed, strict=True)]
    possible = [before / after for (_, before), (_, after) in zip(untouched, trimmed, strict=True)]
    shares = [a / b for a, b in zip(reached, possible, strict=True)]
    return {
        "method": label,
        "rows": list(rows),
        "seconds": median(seconds for seconds, _ in trimmed),
        "stock_layers_seconds": median(seconds for _, seconds in trimmed),
        "speedup": median(reached),
        "speedup_of_stock_layers": median(possible),
        "share": median(shares),
        "shares": shares,
        "runs": [list(run) for run in trimmed],
    }


def table(results: Sequence[dict]) -> Table:
    """The table that is printed."""
    made = Table("", "rows per layer", "prefill, s", "speed-up", "of stock layers", "share [rounds]")
    for row in results:
        shares = f"{row['share']:.1%} [{min(row['shares']):.1%}, {max(row['shares']):.1%}]"
        mean = sum(row["rows"]) / len(row["rows"])
        speedups = f"{row['speedup']:.2f}x", f"{row['speedup_of_stock_layers']:.2f}x"
        made.add_row(row["method"], f"{mean:.0f}", f"{row['seconds']:.2f}", *speedups, shares)
    return made


if __name__ == "__main__":
    main()
