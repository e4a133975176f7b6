"""Time of stock decoder layers with the row counts of ST³: the speed-up that this machine allows.

A matrix product of few rows has fixed costs (reading and packing the weights), so that time does not fall in proportion
to FLOPs. Here single layers of the untouched model, without engine and cache, are timed at every number of rows that a
preset has; the sum over the depth is the least that a trimmed prefill can take on this machine.

    python -m studies.rows.measure --out studies/rows/results/rows-llava-1.5-7b.json
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from studies import llava
from studies.record import record
from vistrim import ST3


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    llava.add_options(parser)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def rows(method: ST3) -> list[int]:
        kept = (method.tokens_kept(options.visual_tokens, i, 0, options.layers) for i in range(options.layers))
        return [options.text_tokens + n for n in kept]

    untouched = [options.text_tokens + options.visual_tokens] * options.layers
    runs = {"untouched": untouched} | {f"st3 {p}": rows(ST3.preset(p)) for p in ("balanced", "compact")}
    # Several layers in turn, so that no weights stay in the processor's cache.
    distinct = min(4, options.layers)
    decoder = llava.make(options, distinct).model.get_decoder()
    turn = 0

    @torch.no_grad()
    def layer_seconds(n: int) -> float:
        nonlocal turn
        turn += 1
        hidden = torch.randn(1, n, options.hidden)
        rotary = decoder.rotary_emb(hidden, position_ids=torch.arange(n)[None])
        began = time.perf_counter()
        decoder.layers[turn % distinct](hidden, position_embeddings=rotary)
        return time.perf_counter() - began

    wanted = sorted({n for run in runs.values() for n in run})
    layer_seconds(wanted[0])
    seconds: dict[int, list[float]] = {n: [] for n in wanted}
    for _ in track(range(options.repeats), "rounds", console=Console(stderr=True)):
        for n in wanted:
            seconds[n].append(layer_seconds(n))
    layer = {n: statistics.median(times) for n, times in seconds.items()}
    total = {name: sum(layer[n] for n in run) for name, run in runs.items()}
    speedup = {name: total["untouched"] / value for name, value in total.items()}

    table = Table("", "stock layers, s", "speed-up possible here", title="Sum over the depth at the preset's rows")
    for name, value in total.items():
        table.add_row(name, f"{value:.2f}", f"{speedup[name]:.3f}x")
    Console().print(table)
    record(options, seconds_per_layer=layer, seconds=total, speedup_possible=speedup)


if __name__ == "__main__":
    main()
