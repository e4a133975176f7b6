"""The tables of a benchmark: time, speed-up with its bound, memory."""

from collections.abc import Mapping, Sequence

from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.tables import Table
from vistrim._utils.units import bytes_text, seconds_text
from vistrim.benchmark.results import Row, Speedup

NONE = "none"
SLOWER = "slower"
"""Mark of a speed-up below 1, as printed."""


def tables(rows: Sequence[Row]) -> list[Table]:
    """Times, speed-ups with their bounds, and memory of each method.

    Parameters
    ----------
    rows : sequence of Row
        Rows of all methods and of the untouched model.

    Returns
    -------
    list of Table
        Narrow enough for a terminal of 140 columns; speed-ups below 1 are flagged.
    """
    return [_times(rows), _speedups(rows), _memory(rows)]


def notes(rows: Sequence[Row], budgets: Mapping[str, str]) -> list[str]:
    """Full notation of each label, one line each.

    Parameters
    ----------
    rows : sequence of Row
        Rows of all methods and of the untouched model.
    budgets : mapping of str to str
        For methods that were set to a budget, the notation with what it reaches, by label.
    """
    meanings = {row.label: budgets.get(row.label, row.cost.notation) for row in rows}
    return [f"{label} = {meaning}" for label, meaning in meanings.items() if label != meaning]


def kv_shares(row: Row, untouched: Row) -> tuple[float, float, float]:
    """KV bytes divided by the untouched model's: the largest of each, the mean over steps, and after the last step."""
    pairs = list(zip(row.cost.kv_bytes, untouched.cost.kv_bytes, strict=False))
    own, full = zip(*pairs, strict=True)
    return max(own) / max(full), sum(a / b for a, b in pairs) / len(pairs), own[-1] / full[-1]


def _times(rows: Sequence[Row]) -> Table:
    rounds = max(row.rounds for row in rows)
    return Table(
        f"Time, medians of {rounds} round{'s' * (rounds != 1)}",
        ("method", "tokens", "encode", "select", "per cut", "prefill", "decode, per token", "total"),
        [
            (
                row.label,
                f"{row.cost.average_tokens:.1f}",
                seconds_text(row.encode),
                seconds_text(row.select),
                _percent(row.select / row.prefill / row.cost.stages) if row.cost.stages else NONE,
                seconds_text(row.prefill),
                NONE if row.step is None else seconds_text(row.step),
                seconds_text(row.total),
            )
            for row in rows
        ],
    )


def _speedups(rows: Sequence[Row]) -> Table:
    columns = (
        "method",
        "encode",
        "prefill",
        "bound",
        "efficiency",
        "decode",
        "bound",
        "efficiency",
        "first token",
        "total",
    )
    lines: list[tuple[str, ...]] = [
        (
            row.label,
            _ratio(row, "encode"),
            _ratio(row, "prefill"),
            *_bound_and_efficiency(row, "prefill"),
            _ratio(row, "step"),
            *_bound_and_efficiency(row, "step"),
            _ratio(row, "first token"),
            _ratio(row, "total"),
        )
        for row in rows
    ]
    flagged = frozenset(
        (i, j) for i, line in enumerate(lines) for j, cell in enumerate(line) if j and cell.endswith(SLOWER)
    )
    return Table("Speed-up, its bound and efficiency", columns, lines, flagged)


def _memory(rows: Sequence[Row]) -> Table:
    untouched = next(row for row in rows if row.label == UNTOUCHED)
    return Table(
        "Memory; KV cache in % of the untouched model's",
        ("method", "KV peak", "KV mean", "KV end", "KV bytes, peak", "peak beyond the weights"),
        [
            (
                row.label,
                *map(_percent, kv_shares(row, untouched)),
                bytes_text(max(row.cost.kv_bytes)),
                "unknown" if row.peak_bytes is None else bytes_text(row.peak_bytes),
            )
            for row in rows
        ],
    )


def _speedup(row: Row, phase: str) -> Speedup | None:
    # The untouched model is the baseline.
    return Speedup(1.0, 1.0) if row.label == UNTOUCHED else row.speedups.get(phase)


def _ratio(row: Row, phase: str) -> str:
    speedup = _speedup(row, phase)
    if speedup is None or (phase == "step" and row.step is None):
        return NONE
    text = f"{speedup.ratio:.2f}x"
    return f"{text} {SLOWER}" if float(text.rstrip("x")) < 1 else text


def _bound_and_efficiency(row: Row, phase: str) -> tuple[str, str]:
    speedup = _speedup(row, phase)
    if speedup is None or speedup.limit is None or (phase == "step" and row.step is None):
        return NONE, NONE
    return f"{speedup.limit:.2f}x", "" if row.label == UNTOUCHED else _percent(speedup.share or 0.0)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
