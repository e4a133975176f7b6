"""The scaling law of visual tokens as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from studies.scaling_law.law import ACCURACY, PARAMETERS, REFIT, VISUAL_TOKENS, best_visual_tokens

BUDGETS = (100.0, 400.0, 1600.0, 6400.0)
"""Billions of FLOPs of the lines in the right panel, beside the one that was asked for."""
_SMALLEST, _LARGEST = 0.1, 100.0


def plot(text_tokens: int, budgets: Sequence[float], path: Path) -> None:
    """Draw measurements and refitted law, and the error at equal FLOPs for a text length.

    Parameters
    ----------
    text_tokens : int
        Tokens of text in the prompt.
    budgets : sequence of float
        FLOPs of the prefill in billions, a line each in the right panel, on which the size of the language model
        follows from the visual tokens.
    path : Path
        PNG file.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    measured, equal_flops = figure.subplots(1, 2)
    tokens = np.geomspace(1, 576, 100)
    for number, (parameters, row) in enumerate(zip(PARAMETERS, ACCURACY, strict=True)):
        color = f"C{number}"
        measured.plot(VISUAL_TOKENS, [1 - accuracy for accuracy in row], "o", color=color)
        curve = [REFIT.error(parameters, v) for v in tokens]
        measured.plot(tokens, curve, color=color, label=f"{parameters:g} billion parameters")
    measured.set_title("measured (dots) and refitted law")
    for number, budget in enumerate(budgets):
        sizes = budget / (2 * (text_tokens + tokens))
        known = (sizes >= _SMALLEST) & (sizes <= _LARGEST)
        errors = [REFIT.error(size, v) for size, v in zip(sizes[known], tokens[known], strict=True)]
        equal_flops.plot(tokens[known], errors, color=f"C{number}", label=f"{budget:g} billion FLOPs")
    best = best_visual_tokens(REFIT, text_tokens)
    equal_flops.axvline(best, color="gray", linestyle="--", label=f"best: {best:.1f} visual tokens")
    equal_flops.set_title(f"refitted law at equal FLOPs, {text_tokens} text tokens")
    for axes in (measured, equal_flops):
        axes.set_xscale("log")
        axes.set_xlabel("visual tokens")
        axes.set_ylabel("error, 1 - mean accuracy")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
