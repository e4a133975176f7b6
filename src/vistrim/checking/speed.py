"""What trimming gains in time, next to what it could gain at most."""

from __future__ import annotations

from typing import Any

from vistrim.analysis.comparison import compare
from vistrim.checking.results import Status
from vistrim.checking.subject import NotPossibleError, Subject
from vistrim.methods import ST3

ROUNDS = 3


def check_speed(subject: Subject) -> tuple[Status, str, dict[str, Any]]:
    """Pairs of runs of the untouched and the trimmed model, in turn."""
    # The warm-up is shorter than an answer; no token that ends one is ever taken.
    options = {name: value for name, value in subject.options.items() if name != "min_new_tokens"}
    found = compare(subject.model, subject.inputs, ST3(), repeats=ROUNDS, **options)
    report = found.report
    if not report.prefill_flops or found.prefill_speedup is None:
        raise NotPossibleError("nothing was computed in prefill")
    bound = report.prefill_flops_full / report.prefill_flops
    figures = {
        "method": report.method,
        "rounds": ROUNDS,
        "prefill_speedup": found.prefill_speedup,
        "prefill_bound": bound,
        "decode_speedup": found.decode_speedup,
        "decode_bound": report.kv_bytes_full / report.kv_bytes,
        "prefill_seconds": found.untouched.prefill_seconds,
    }
    told = f"st3: prefill {found.prefill_speedup:.2f}x of at most {bound:.2f}x by FLOPs"
    if found.decode_speedup is not None:
        told += f", decoding {found.decode_speedup:.2f}x"
    fixed = ", mostly fixed cost at this size" if found.untouched.prefill_seconds < 0.05 else ""
    return "measured", f"{told} (untouched prefill {1e3 * found.untouched.prefill_seconds:.0f} ms{fixed})", figures
