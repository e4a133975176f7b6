"""Plot of speed-ups with their bounds, KV bytes during decoding, and time by phase."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vistrim._utils.labels import UNTOUCHED, short_names
from vistrim.benchmark.results import Row

LONGEST_LABEL = 32
"""Length of a method's label, in characters, above which its parameters are left out."""
_PHASES = (("prefill", "prefill", "C0"), ("step", "decode, per token", "C1"))
_PARTS = (("encode", "C2"), ("select", "C3"), ("rest of prefill", "C0"), ("decode", "C1"))
_LINES = ("-", "--", "-.", ":")
_GIB, _MIB = 1 << 30, 1 << 20


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the three panels.

    Parameters
    ----------
    rows : sequence of Row
        Rows of all methods and of the untouched model.
    path : Path
        PNG file.
    """
    names = short_names([row.label for row in rows], LONGEST_LABEL)
    heights = (1.5 + 0.6 * max(1, len(rows) - 1), 3 + 0.12 * len(rows), 1.5 + 0.4 * len(rows))
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    speedups, held, times = figure.subplots(3, 1, height_ratios=heights)
    _draw_speedups(speedups, [row for row in rows if row.label != UNTOUCHED], names)
    _draw_kv(held, rows, names)
    _draw_times(times, rows, names)
    figure.savefig(path, dpi=110)


def time_parts(row: Row) -> dict[str, float]:
    """Seconds of a whole generation, split into the parts of a stacked bar."""
    rest = row.prefill - row.select
    steps = len(row.cost.kv_bytes) - 1
    return {
        # A method that reads the vision tower selects during encoding: select beyond prefill is a part of that.
        "encode": row.encode + min(0.0, rest),
        "select": row.select,
        "rest of prefill": max(0.0, rest),
        "decode": (row.step or 0.0) * steps,
    }


def _draw_speedups(axes: Any, rows: Sequence[Row], names: dict[str, str]) -> None:
    axes.axvline(1, color="gray", linestyle="--", linewidth=1)
    ends = [1.0]
    for number, (phase, label, color) in enumerate(_PHASES):
        known = [(i, row.speedups[phase]) for i, row in enumerate(rows) if phase in row.speedups]
        places = [i + 0.4 * number - 0.2 for i, _ in known]
        axes.barh(places, [found.ratio for _, found in known], height=0.36, color=color, label=label)
        bounds = [(found.limit, place) for (_, found), place in zip(known, places, strict=True) if found.limit]
        marked = {"label": "bound"} if number == 0 else {}
        axes.plot([x for x, _ in bounds], [y for _, y in bounds], "k|", markersize=16, markeredgewidth=2, **marked)
        for (_, found), place in zip(known, places, strict=True):
            ends.append(max(found.ratio, found.limit or 0.0))
            of = f" of {found.limit:.2f}x" if found.limit else ""
            axes.annotate(
                f"{found.ratio:.2f}x{of}",
                (ends[-1], place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
                color="red" if round(found.ratio, 2) < 1 else "black",
            )
    axes.set_xlim(0, 1.25 * max(ends))
    _methods_axis(axes, rows, names)
    axes.set_xlabel("speed-up over untouched")
    axes.set_title("speed-up (bar) and its bound (mark); red: slower")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _draw_kv(axes: Any, rows: Sequence[Row], names: dict[str, str]) -> None:
    largest = max(max(row.cost.kv_bytes) for row in rows)
    size, unit = (_GIB, "GiB") if largest >= _GIB else (_MIB, "MiB")
    trimmed = [row for row in rows if row.label != UNTOUCHED]
    drawn = [
        # Each line is thinner than the previous one, so that equal lines stay visible.
        *((row, f"C{i % 10}", _LINES[i // 10 % len(_LINES)], 7 - 5 * i / len(rows)) for i, row in enumerate(trimmed)),
        *((row, "black", "--", 1) for row in rows if row.label == UNTOUCHED),
    ]
    for row, color, line, width in drawn:
        values = [n / size for n in row.cost.kv_bytes]
        # A line of one point is invisible without a marker.
        marker = "o" if len(values) == 1 else None
        axes.plot(values, color=color, linestyle=line, linewidth=width, marker=marker, label=names[row.label])
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("decoding steps after prefill")
    axes.set_ylabel(f"KV cache, {unit}")
    axes.set_title("KV cache")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _draw_times(axes: Any, rows: Sequence[Row], names: dict[str, str]) -> None:
    parts = [time_parts(row) for row in rows]
    longest = max(sum(part.values()) for part in parts)
    scale, unit = (1.0, "s") if longest >= 10 else (1e3, "ms")
    begun = [0.0] * len(rows)
    for name, color in _PARTS:
        widths = [scale * part[name] for part in parts]
        axes.barh(range(len(rows)), widths, left=begun, height=0.6, color=color, label=name)
        begun = [a + b for a, b in zip(begun, widths, strict=True)]
    _methods_axis(axes, rows, names)
    axes.set_xlabel(f"{unit}, medians")
    axes.set_title("time by phase")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _methods_axis(axes: Any, rows: Sequence[Row], names: dict[str, str]) -> None:
    axes.set_yticks(range(len(rows)), [names[row.label] for row in rows])
    # The first method on top, as in the tables.
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
