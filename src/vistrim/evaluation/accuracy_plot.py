"""Plot of accuracy against cost."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vistrim._utils.labels import UNTOUCHED, without_parameters
from vistrim.evaluation.accuracy_summary import Row, groups_of

_MARKERS = "os^Dv<>ph8XP*d"
MOST_ENTRIES = 24
"""Number of rows above which the legend names methods without their parameters."""


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw every method's accuracy with its 95 % interval against average tokens, FLOPs and the mean KV cache.

    Parameters
    ----------
    rows : sequence of Row
        The untouched model is drawn as a line.
    path : Path
        PNG file; not written if there is nothing to draw.
    """
    groups = groups_of(rows)
    if not groups:
        return
    names = legend_names(rows)
    styles = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    figure = Figure(figsize=(5 * len(groups), 12.5), layout="constrained")
    panels = figure.subplots(3, len(groups), squeeze=False)
    for column, group in enumerate(groups):
        known = next(row.groups[group] for row in rows if group in row.groups)
        for axes, name, label, scale in (
            (panels[0][column], "average_tokens", "visual tokens per layer in prefill, mean", 1),
            (panels[1][column], "flops_share", "prefill FLOPs with the method's own, % of untouched", 100),
            (panels[2][column], "kv_mean", "KV cache, mean over steps, % of untouched", 100),
        ):
            for row in rows:
                if group not in row.groups:
                    continue
                figures = row.groups[group]
                # Without correct answers, the height is the agreement with the untouched model.
                height, interval = figures.accuracy, figures.accuracy_interval
                accuracy = 100 * (figures.agreement if height is None else height)
                low, high = (accuracy, accuracy) if interval is None else (100 * bound for bound in interval)
                if row.method == UNTOUCHED:
                    axes.axhline(accuracy, color="gray", linestyle="--", label=row.label)
                    continue
                number = styles[names[row.label]]
                axes.errorbar(
                    scale * getattr(figures, name),
                    accuracy,
                    # Equal numbers may differ in the last digit.
                    yerr=[[max(0.0, accuracy - low)], [max(0.0, high - accuracy)]],
                    marker=_MARKERS[number % len(_MARKERS)],
                    color=f"C{number % 10}",
                    linestyle="none",
                    capsize=2,
                    label=names[row.label],
                )
            axes.set_xlabel(label)
            axes.set_ylabel("agreement, %" if known.accuracy is None else "accuracy, %")
            axes.set_title(group)
            axes.grid(alpha=0.3)
    handles, labels = panels[0][0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=110)


def legend_names(rows: Sequence[Row]) -> dict[str, str]:
    """Name of each row in the legend: its label, or only method and positions if there are too many rows."""
    if len(rows) <= MOST_ENTRIES:
        return {row.label: row.label for row in rows}
    return {row.label: without_parameters(row.label) for row in rows}
