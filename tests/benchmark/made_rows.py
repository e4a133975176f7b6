"""Made-up results of a benchmark."""

from collections.abc import Sequence
from typing import Any

from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.results import Cost, Row, Run, Speedup

MIB = 1 << 20


def cost(notation: str = UNTOUCHED, share: float = 1.0, steps: int = 4, **changed: Any) -> Cost:
    values: dict[str, Any] = {
        "notation": notation,
        "average_tokens": 576 * share,
        "prefill_flops": 8e12 * share,
        "kv_bytes": [int(300 * MIB * share) + i * MIB for i in range(steps + 1)],
        "weight_bytes": 13_000 * MIB,
        "stages": 0 if notation == UNTOUCHED else 4,
    }
    return Cost(**(values | changed))


def untouched(steps: int = 4, **changed: Any) -> Row:
    values: dict[str, Any] = {
        "label": UNTOUCHED,
        "cost": cost(steps=steps),
        "rounds": 3,
        "encode": 0.5,
        "select": 0.0,
        "prefill": 2.0,
        "step": 0.05 if steps else None,
        "total": 2.5 + 0.05 * steps,
        "peak_bytes": 400 * MIB,
    }
    return Row(**(values | changed))


def trimmed(label: str = "st3", speedup: float = 2.0, steps: int = 4, **changed: Any) -> Row:
    speedups = {
        "encode": Speedup(1.0),
        "prefill": Speedup(speedup, 2.5),
        "first token": Speedup(0.9 * speedup),
        "step": Speedup(1.02, 1.01),
        "total": Speedup(0.8 * speedup),
    }
    if not steps:
        del speedups["step"]
    values: dict[str, Any] = {
        "label": label,
        "cost": cost(f"{label} with all parameters", 0.4, steps),
        "select": 0.016,
        "prefill": 2.0 / speedup,
        "total": 0.5 + 2.0 / speedup + 0.05 * steps,
        "peak_bytes": 200 * MIB,
        "speedups": speedups,
    }
    return untouched(steps, **(values | changed))


def runs(rows: Sequence[Row], rounds: int = 2) -> list[Run]:
    return [
        Run(
            method=row.label,
            round=number,
            encode_seconds=row.encode,
            first_token_seconds=row.encode + row.prefill,
            select_seconds=row.select,
            step_seconds=[row.step or 0.0] * (len(row.cost.kv_bytes) - 1),
            peak_bytes=row.peak_bytes,
        )
        for number in range(rounds)
        for row in rows
    ]


def many(count: int) -> list[Row]:
    """The untouched model and long compositions, some of which differ in parameters only."""
    labels = [f"fastervlm:keep=0.5,positions=original+st3:preset=compact,stride={i}" for i in range(count - 1)]
    return [untouched(), *(trimmed(label, 0.5 + 0.3 * i) for i, label in enumerate(labels))]
