"""Plot of scores against costs, one row of panels per protocol."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
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
        unit = 100 if board.scores_are_shares else 1
        # By entry: not every result has every cost.
        drawn: dict[int, tuple[Artist, str]] = {}
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
                    line = axes.axhline(unit * entry.score, color="gray", linestyle="--")
                    drawn.setdefault(number, (line, names[name]))
                elif value is not None:
                    style = {"marker": _MARKERS[number % len(_MARKERS)], "color": f"C{number % 10}"}
                    (line,) = axes.plot(scale * value, unit * entry.score, linestyle="none", **style)
                    drawn.setdefault(number, (line, names[name]))
            axes.set_xlabel(label)
            axes.set_ylabel("score, %" if board.scores_are_shares else "score")
            axes.grid(alpha=0.3)
        row[0].set_title(board.title, loc="left")
        lines, shown_names = zip(*(drawn[number] for number in sorted(drawn)), strict=True)
        row[-1].legend(lines, shown_names, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize="small")
    figure.savefig(path, dpi=110)
    return True
