"""Prefill speed-up at the shape of LLaVA-1.5-7B, next to its FLOP limit.

Untouched and trimmed prefills take turns in one run; figures are medians, and speed-ups are medians of the ratios
within each round, so that a machine that gets slower or faster meanwhile does not distort them. "keep everything" runs
the engine, scores and ranks at every cut of the balanced preset, but drops nothing, so that no rows are copied: what it
takes more than the untouched model is the engine's overhead.

    python -m benchmarks.prefill --out benchmarks/results/cpu/prefill-llava-1.5-7b.json
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers.modeling_outputs import BaseModelOutputWithPooling

from benchmarks import shapes
from benchmarks.record import record
from vistrim import ST3, VTW, FastV, PyramidDrop, SparseVLM, trim
from vistrim.benchmark.overhead import KeepEverything
from vistrim.methods.base import Method

METHODS: dict[str, Method | None] = {
    "untouched": None,
    "keep everything": KeepEverything(),
    "st3 balanced": ST3.preset("balanced"),
    "st3 compact": ST3.preset("compact"),
    "fastv": FastV(),
    "pyramiddrop": PyramidDrop(),
    "sparsevlm": SparseVLM(),
    "vtw": VTW(),
}
"""Methods before the decoder are missing: the made-up vision tower has no attention to rank by."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes.add_options(parser)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--distinct-layers", type=int, default=8, help="layers with weights of their own (memory)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    config = shapes.llava_7b_config(options.layers, options.hidden)
    dtype = getattr(torch, options.dtype)
    model = shapes.build(config, dtype, min(options.distinct_layers, options.layers))
    ids = shapes.prompt(options.visual_tokens, options.text_tokens)
    features = torch.randn(options.visual_tokens, options.hidden, generator=torch.Generator().manual_seed(1)).to(dtype)

    def prefill(method: Method | None) -> tuple[float, Any]:
        encoded = {"image": BaseModelOutputWithPooling(pooler_output=[features])}
        with torch.no_grad(), trim(model, method) if method else nullcontext() as run:
            began = time.perf_counter()
            model(input_ids=ids, mm_encoder_outputs=encoded, use_cache=True, logits_to_keep=1)
            seconds = time.perf_counter() - began
        return seconds, run.report if run else None

    # The shortest method warms up every code path and the weights.
    reports = {"st3 compact": prefill(METHODS["st3 compact"])[1]}
    seconds: dict[str, list[float]] = {name: [] for name in options.methods}
    for _ in track(range(options.repeats), "rounds", console=Console(stderr=True)):
        for name in options.methods:
            taken, reports[name] = prefill(METHODS[name])
            seconds[name].append(taken)
            if options.out:
                _write(options, seconds, reports)
    _print(_write(options, seconds, reports))


def _write(options: argparse.Namespace, seconds: dict[str, list[float]], reports: dict[str, Any]) -> dict[str, Any]:
    rows = {}
    for name, times in seconds.items():
        if not times:
            continue
        report = reports[name]
        limit = report.prefill_flops_full / report.prefill_flops if report else 1.0
        speedup = statistics.median(a / b for a, b in zip(seconds["untouched"], times, strict=False))
        rows[name] = {
            "seconds": times,
            "median_seconds": statistics.median(times),
            "speedup": speedup,
            "flop_limit": limit,
            "share_of_limit": speedup / limit,
            "select_seconds": report.select_seconds if report else 0.0,
            "prefill_tflop": report.prefill_flops / 1e12 if report else None,
            "kv_bytes": report.kv_bytes if report else None,
            "kv_share": report.kv_bytes / report.kv_bytes_full if report else 1.0,
            "method": report.method if report else None,
        }
    return record(options, results=rows)


def _print(result: dict[str, Any]) -> None:
    table = Table(title="Prefill, untouched and trimmed in turns")
    for column in ("", "median s", "speed-up", "FLOP limit", "share of limit", "selection s", "KV share"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in result["results"].items():
        table.add_row(
            name,
            f"{row['median_seconds']:.2f}",
            f"{row['speedup']:.3f}x",
            f"{row['flop_limit']:.3f}x",
            f"{100 * row['share_of_limit']:.1f} %",
            f"{row['select_seconds']:.3f}",
            f"{100 * row['kv_share']:.1f} %",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
