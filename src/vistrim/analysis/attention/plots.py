"""Plots of an analysis, readable in black and white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vistrim.analysis.attention.summary import ALL

_DPI = 100
_GRAYS = "Greys"
LEAST_KL = 1e-5
"""In nats: lower end of the logarithmic axis. Smaller values are drawn there."""
_STYLES: Mapping[str, tuple[str, str, str]] = {
    "last": ("o", "-", "black"),
    "question": ("s", "-", "black"),
    "answer": ("^", "-", "black"),
    "last-sum": ("o", "--", "0.35"),
    "question-sum": ("s", "--", "0.35"),
    "last-values": ("o", ":", "0.35"),
    "question-values": ("s", ":", "0.35"),
    "uniform": ("D", "-", "0.6"),
    "random": ("*", "-.", "0.6"),
    "none": ("x", ":", "0.6"),
}
"""Marker, line and gray. Markers of solid lines are filled, others hollow."""


def draw(
    groups: Mapping[str, Any], settings: Mapping[str, Any], folder: Path, grid: tuple[int, int] | None
) -> dict[str, str]:
    """Draw all plots.

    Parameters
    ----------
    groups : mapping
        Figures by group of tasks.
    settings : mapping
        Settings of the analysis.
    folder : Path
        Folder of the PNG files.
    grid : tuple of int or None
        Rows and columns of the visual tokens, if they are the same in all prompts.

    Returns
    -------
    dict of str to str
        Description of each plot, by file name.
    """
    figures = {
        "attention.png": (_attention(groups), "attention on visual tokens by layer, and over the answer"),
        "layers.png": (_layers(groups[ALL], settings["keep"]), "similarity of attention between layers"),
        "sinks.png": (_sinks(groups[ALL], grid), "attention sinks among the visual tokens"),
    }
    if groups[ALL]["rankings"]:
        figures["rankings.png"] = (_rankings(groups, settings), "answers kept with the ranking of each layer")
    for name, (figure, _) in figures.items():
        figure.savefig(folder / name, dpi=_DPI)
    return {name: text for name, (_, text) in figures.items()}


def _attention(groups: Mapping[str, Any]) -> Figure:
    shown = _without_all(groups)
    figure = Figure(figsize=(4.2 * len(shown), 6.6), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    for column, (name, group) in enumerate(shown.items()):
        axes, on = panels[0][column], group["on_visual"]
        for rows in ("last", "question", "answer"):
            if on[rows] is not None:
                _line(axes, rows, range(len(on[rows])), _percent(on[rows]))
        _finish(axes, f"{name} ({group['questions']})", "layer", "attention on visual tokens, %")
        axes.set_ylim(0, 100)
        axes.legend(fontsize="small")
        _heat(
            figure,
            panels[1][column],
            100 * _array(on["steps"]["mean"]),
            ("step (0: last prompt token)", "layer"),
            "attention on visual tokens, %",
            (0, 100),
        )
    return figure


def _layers(group: Mapping[str, Any], keep: float) -> Figure:
    figure = Figure(figsize=(12.6, 6.6), layout="constrained")
    panels = figure.subplots(2, 3)
    most = float(np.nanmax(_array([group["divergence"]["row"], group["divergence"]["visual"]])))
    for axes, values, title in (
        (panels[0][0], group["divergence"]["row"], "divergence of last rows, bits"),
        (panels[0][1], group["divergence"]["visual"], "the same on visual tokens alone"),
    ):
        _heat(figure, axes, _array(values), ("layer", "layer"), title, (0, most))
    for axes, name in ((panels[1][0], "last"), (panels[1][1], "question")):
        title = f"overlap of the top {100 * keep:g} %, {name}, %"
        _heat(figure, axes, 100 * _array(group["overlap"][name]), ("layer", "layer"), title, (0, 100))
    axes, depth = panels[0][2], len(group["divergence"]["row"])
    for name in ("last", "question"):
        after = [group["overlap"][name][layer - 1][layer] for layer in range(1, depth)]
        _line(axes, name, range(1, depth), _percent(after))
    for name, label in (("kept_from_layer", "answer, previous layer"), ("kept_from_step", "answer, previous step")):
        if (values := group["steps"][name]) is not None:
            first = 1 if name == "kept_from_layer" else 0
            style = _STYLES["answer"] if first else ("v", ":", "0.35")
            _line(axes, label, range(first, depth), _percent(values[first:]), style)
    _chance(axes, keep)
    _finish(axes, "top shared with the previous layer (or step)", "layer", "%")
    axes = panels[1][2]
    if group["other_question"] is not None:
        for name in ("last", "question"):
            _line(axes, name, range(depth), _percent(group["other_question"][name]))
    _chance(axes, keep)
    _finish(axes, "top shared with another question", "layer", "%")
    for axes in panels[:, 2]:
        axes.set_ylim(0, 102)
        axes.legend(fontsize="small")
    return figure


def _sinks(group: Mapping[str, Any], grid: tuple[int, int] | None) -> Figure:
    sinks = group["sinks"]
    figure = Figure(figsize=(12.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    layers = range(len(sinks["count"]))
    panels[0].bar(layers, sinks["count"], color="0.4")
    _finish(panels[0], "sinks", "layer", "visual tokens, mean over questions")
    panels[1].bar(layers, _percent(sinks["draws"]), color="0.4")
    _finish(panels[1], "attention on sinks", "layer", "% of that on visual tokens")
    places = sinks["places"]
    if not sinks["lasting"]:
        panels[2].axis("off")
        panels[2].text(0.5, 0.5, "no visual token is a sink\nin half of the layers", ha="center", va="center")
    elif grid is not None and places is not None and len(places) == grid[0] * grid[1]:
        title = "lasting sinks, % of questions"
        _heat(figure, panels[2], 100 * _array(places).reshape(grid), ("column", "row"), title, (0, 100))
    else:
        panels[2].axis("off")
    return figure


def _rankings(groups: Mapping[str, Any], settings: Mapping[str, Any]) -> Figure:
    shown, layers = _without_all(groups), settings["layers"]
    figure = Figure(figsize=(max(6.4, 4.6 * len(shown)), 8.2), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    for column, (name, group) in enumerate(shown.items()):
        for row, (figure_name, label) in enumerate((("kept", "answers kept, %"), ("mean", "KL, nats"))):
            axes = panels[row][column]
            for ranking, values in group["rankings"].items():
                shares = figure_name == "kept"
                drawn = _percent(values["kept"]) if shares else [max(LEAST_KL, value) for value in values["mean"]]
                _line(axes, ranking, layers, drawn)
            _finish(axes, f"{name} ({group['questions']})" if row == 0 else "", "ranked by layer", label)
            if figure_name == "kept":
                axes.set_ylim(0, 102)
            else:
                axes.set_yscale("log")
                axes.set_ylim(bottom=LEAST_KL)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize="small")
    return figure


def _without_all(groups: Mapping[str, Any]) -> dict[str, Any]:
    """The groups of tasks, without the group of all questions if there are others."""
    return {name: group for name, group in groups.items() if name != ALL or len(groups) == 1}


def _line(
    axes: Axes, name: str, at: Sequence[int], values: Sequence[float], style: tuple[str, str, str] | None = None
) -> None:
    marker, line, gray = style or _STYLES[name]
    filled = gray if line == "-" else "white"
    axes.plot(at, values, marker=marker, linestyle=line, color=gray, markerfacecolor=filled, markersize=4, label=name)


def _chance(axes: Axes, keep: float) -> None:
    axes.axhline(100 * keep, color="0.6", linestyle="--", linewidth=1, label="by chance")


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _heat(
    figure: Figure,
    axes: Axes,
    values: np.ndarray[Any, np.dtype[Any]],
    names: tuple[str, str],
    title: str,
    limits: tuple[float, float],
) -> None:
    image = axes.imshow(values, cmap=_GRAYS, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def _array(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array(values, dtype=float)


def _percent(values: Sequence[float | None]) -> list[float]:
    return [100 * value if value is not None else float("nan") for value in values]
