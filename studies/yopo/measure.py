"""FLOPs and time saved by each of YOPO's cuts at the width of LLaVA-1.5-7B.

Four of its 32 layers, so that it takes minutes; the cuts are the authors' for 7B: window 5 of 24, 24 of 32 heads
(chosen at random, as the weights are), half of the layers, half of the neurons. Untouched and cut runs take turns;
figures are medians, and speed-ups are medians of the ratios within each round. The limit is the ratio of FLOPs as the
report counts them.

    python -m studies.yopo.measure --out studies/yopo/results/yopo-llava-1.5-7b-4-layers.json

A table is written beside the JSON file, as Markdown.
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
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from studies import llava
from studies.record import record
from vistrim import YOPO, trim
from vistrim._utils.labels import UNTOUCHED
from vistrim.engine.releases import CACHE

WINDOW, KEPT_HEADS, FFN = 5, 0.75, 0.5
NOTE = """
Bold: slower than untouched. Decoding has no limit stated: it is bound by reading the weights, which no cut shrinks for
text, and only the heads and the layers act in it.
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    llava.add_options(parser)
    parser.set_defaults(layers=4)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--new-tokens", type=int, default=4, help="decoding steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    subject = llava.make(options, options.layers, options.dtype)
    model, ids = subject.model, subject.inputs["input_ids"]
    # Only the decoder is measured.
    noise = torch.Generator().manual_seed(1)
    features = torch.randn(options.visual_tokens, options.hidden, generator=noise).to(model.dtype)
    methods = cuts(options.layers, model.config.text_config.num_attention_heads)

    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    reports: dict[str, Any] = {}
    run(model, ids, features, methods["together"], options.new_tokens)  # Warms up.
    for _ in track(range(options.repeats), "rounds", console=Console(stderr=True)):
        for name, method in methods.items():
            seconds, reports[name] = run(model, ids, features, method, options.new_tokens)
            taken[name].append(seconds)
        result = record(options, results=_results(methods, taken, reports))
        if options.out:
            options.out.with_suffix(".md").write_text(table(result))
    print(table(result))


def cuts(layers: int, heads: int) -> dict[str, YOPO | None]:
    """Each cut alone, and all of them."""
    generator = torch.Generator().manual_seed(0)
    kept = int(KEPT_HEADS * heads)
    chosen = [torch.randperm(heads, generator=generator)[:kept].tolist() for _ in range(layers)]
    mask = tuple(tuple(head in some for head in range(heads)) for some in chosen)
    return {
        UNTOUCHED: None,
        f"window {WINDOW}": YOPO(window=WINDOW),
        f"{kept} of {heads} heads": YOPO(heads=mask),
        f"{kept} of {heads} heads, normalize=all": YOPO(heads=mask, normalize="all"),
        f"{layers // 2} of {layers} layers": YOPO(layer=layers // 2),
        f"{FFN:.0%} of the neurons": YOPO(ffn=FFN),
        "together": YOPO(WINDOW, mask, layers // 2, FFN),
    }


@torch.no_grad()
def run(
    model: Any, ids: Tensor, features: Tensor, method: YOPO | None, new_tokens: int
) -> tuple[tuple[float, float], Any]:
    """Seconds of a prefill and of a decoding step, and the report."""
    encoded = {"image": BaseModelOutputWithPooling(pooler_output=[features])}
    with trim(model, method) if method else nullcontext() as trimmed:
        began = time.perf_counter()
        cache = model(input_ids=ids, mm_encoder_outputs=encoded, use_cache=True, logits_to_keep=1)[CACHE]
        prefilled = time.perf_counter()
        for token in range(new_tokens):
            model(input_ids=torch.tensor([[10 + token]]), **{CACHE: cache}, use_cache=True)
        ended = time.perf_counter()
    return (prefilled - began, (ended - prefilled) / max(1, new_tokens)), trimmed.report if trimmed else None


def _results(
    methods: dict[str, YOPO | None], taken: dict[str, list[tuple[float, float]]], reports: dict[str, Any]
) -> dict[str, Any]:
    rows = {}
    for name in methods:
        prefill, step = zip(*taken[name], strict=True)
        prefill_before, step_before = zip(*taken[UNTOUCHED], strict=True)
        report = reports[name]
        limit = report.prefill_flops_full / report.prefill_flops if report else 1.0
        speedup = statistics.median(a / b for a, b in zip(prefill_before, prefill, strict=True))
        rows[name] = {
            "prefill_seconds": prefill,
            "prefill_speedup": speedup,
            "flop_limit": limit,
            "share_of_limit": speedup / limit,
            "decode_seconds": step,
            "decode_speedup": statistics.median(a / b for a, b in zip(step_before, step, strict=True)),
            "prefill_tflop": report.prefill_flops / 1e12 if report else None,
            "kv_share": report.kv_bytes / report.kv_bytes_full if report else 1.0,
        }
    return rows


def table(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings, machine = result["settings"], result["environment"]
    lines = [
        "# YOPO's cuts",
        "",
        f"{settings['layers']} layers of LLaVA-1.5-7B's proportions, {settings['hidden']} wide, random weights in "
        f"{settings['dtype']}; {settings['visual_tokens']} visual and {settings['text_tokens']} text tokens; "
        f"{settings['repeats']} rounds on {settings['threads']} threads; torch {machine['torch']}.",
        "",
        "| cut | FLOPs | prefill, s | speed-up | limit | share of limit | decoding, ms | speed-up | KV |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["results"].items():
        lines.append(
            f"| {name} | {100 / row['flop_limit']:.1f} % | {statistics.median(row['prefill_seconds']):.2f} "
            f"| {_times(row['prefill_speedup'])} | {row['flop_limit']:.2f}x | {100 * row['share_of_limit']:.0f} % "
            f"| {1e3 * statistics.median(row['decode_seconds']):.0f} | {_times(row['decode_speedup'])} "
            f"| {100 * row['kv_share']:.0f} % |"
        )
    return "\n".join(lines) + "\n" + NOTE


def _times(speedup: float) -> str:
    return f"{speedup:.2f}x" if speedup >= 1 else f"**{speedup:.2f}x**"


if __name__ == "__main__":
    main()
