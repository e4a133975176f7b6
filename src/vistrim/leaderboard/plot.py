"""Plot of scores against costs, one row of panels per protocol."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vistrim._utils.labels import UNTOUCHED, short_names
from vistrim.leaderboard.boards import Board

LONGEST = 40
_MARKERS = "os^Dv<>ph8XP*d"


def plot(boards: Sequence[Board], path: Path) -> bool:
    """Draw the score of each result against its tokens, FLOPs and KV cache.

    Parameters
    ----------
    boards : sequence of Board
        Boards without scores are left out.
    path : Path
        PNG file.

    Returns
    -------
    bool
        Whether there was anything to draw.
    """
    shown = [board for board in boards if any(entry.score is not None for entry in board.entries)]
    if not shown:
        return False
    figure = Figure(figsize=(15, 4.5 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 3, squeeze=False)
    for row, board in zip(panels, shown, strict=True):
        labels = [f"{entry.method} on {entry.model}" for entry in board.entries]
        names = short_names(labels, LONGEST)
        for axes, cost, label, scale in zip(
            row,
            ("tokens", "flops", "kv"),
            ("visual tokens per layer", "prefill FLOPs, % of untouched", "KV cache, mean, % of untouched"),
            (1, 100, 100),
            strict=True,
        ):
            for number, (entry, name) in enumerate(zip(board.entries, labels, strict=True)):
                value = getattr(entry, cost)
                if entry.score is None:
                    continue
                if entry.method == UNTOUCHED:
                    axes.axhline(100 * entry.score, color="gray", linestyle="--", label=names[name])
                elif value is not None:
                    style = {"marker": _MARKERS[number % len(_MARKERS)], "color": f"C{number % 10}"}
                    axes.plot(scale * value, 100 * entry.score, linestyle="none", label=names[name], **style)
            axes.set_xlabel(label)
            axes.set_ylabel("score, %")
            axes.grid(alpha=0.3)
        row[0].set_title(board.title, loc="left")
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize="small")
    figure.savefig(path, dpi=110)
    return True
