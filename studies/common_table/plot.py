"""Plots of accuracy against visual tokens. Line styles and markers tell the lines apart without colors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.common_table.figures import COMPARED_WITH
from studies.common_table.rows import Row
from vistrim._utils.labels import UNTOUCHED

COLUMNS = 5
_GRAY = {"random": (0, (4, 2)), "uniform": (0, (1, 1))}
_MARKERS = "osD^vXPp"
_OWN = (("-", "o", "black"), ("--", "s", "white"), ("-.", "^", "white"), (":", "D", "white"))


def plot(rows: Sequence[Row], figures: Mapping[str, Any], path: Path) -> None:
    """Draw the mean accuracy of every method, beside random and evenly spaced tokens, into a PNG file."""
    ran = [row for row in rows if row.name in figures]
    panels: dict[str, list[str]] = {}
    for label in sorted({row.label for row in ran}):
        panels.setdefault(label.split(":")[0], []).append(label)
    methods = [name for name in panels if name not in COMPARED_WITH]
    height = max(1, -(-len(methods) // COLUMNS))
    figure = Figure(figsize=(2.5 * COLUMNS, 2.3 * height + 0.8), layout="constrained")
    every = list(figure.subplots(height, COLUMNS, squeeze=False, sharex=True, sharey=True).flat)
    for axes in every[len(methods) :]:
        axes.set_axis_off()
    for axes in every[max(0, len(methods) - COLUMNS) : len(methods)]:
        axes.tick_params(labelbottom=True)
    for name, axes in zip(methods, every, strict=False):
        axes.axhline(100 * figures[UNTOUCHED]["mean"], color="gray", linewidth=0.8, label=UNTOUCHED)
        for other, style in _GRAY.items():
            axes.plot(*_line(other, ran, figures), color="gray", linestyle=style, label=other)
        for label, (own, marker, fill) in zip(panels[name], _OWN * len(panels[name]), strict=False):
            tokens, accuracy = _line(label, ran, figures)
            axes.plot(tokens, accuracy, own, marker=marker, color="black", markerfacecolor=fill, markersize=4)
            if label != name:
                # The legend of a panel names its variants.
                axes.lines[-1].set_label(label.partition(":")[2])
        _finish(axes, name)
    handles, labels = next(iter(figure.axes)).get_legend_handles_labels()
    shared = len(_GRAY) + 1
    figure.legend(handles[:shared], labels[:shared], loc="outside upper center", ncols=shared)
    figure.supxlabel("visual tokens per layer in prefill, mean")
    figure.supylabel("accuracy, mean of the groups of tasks, %")
    figure.savefig(path, dpi=90, metadata={"Software": None})


def plot_together(rows: Sequence[Row], figures: Mapping[str, Any], named: Sequence[str], path: Path) -> None:
    """Draw all methods into one PNG file: those in ``named`` in black with their name, the others in gray."""
    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(100 * figures[UNTOUCHED]["mean"], color="black", linewidth=0.8)
    ran = [row for row in rows if row.name in figures]
    for label in sorted({row.label for row in ran} - set(named)):
        axes.plot(*_line(label, ran, figures), color="silver", linewidth=0.9, marker=".", markersize=3, zorder=1)
    for number, (label, marker) in enumerate(zip(named, _MARKERS, strict=False)):
        style, fill = ("-", "black") if number % 2 else ("--", "white")
        axes.plot(*_line(label, ran, figures), style, marker=marker, color="black", markerfacecolor=fill, label=label)
    axes.grid(alpha=0.3)
    axes.set_xlabel("visual tokens per layer in prefill, mean")
    axes.set_ylabel("accuracy, %")
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _line(label: str, rows: Sequence[Row], figures: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    points = sorted((_tokens(figures[row.name]), 100 * figures[row.name]["mean"]) for row in rows if row.label == label)
    return [tokens for tokens, _ in points], [accuracy for _, accuracy in points]


def _tokens(found: Mapping[str, Any]) -> float:
    return sum(group["average_tokens"] for group in found["groups"].values()) / len(found["groups"])


def _finish(axes: Axes, name: str) -> None:
    axes.set_title(name, fontsize="medium")
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    own = len(_GRAY) + 1
    if labels[own:]:
        axes.legend(handles[own:], labels[own:], fontsize="x-small", loc="lower right")
