"""Names of the rankings that an analysis tries."""

BY_ATTENTION = ("last", "question", "last-sum", "question-sum", "last-values", "question-values")
NOTHING_STAYS = "none"
BASELINES = ("uniform", "random", NOTHING_STAYS)
RANKINGS = (*BY_ATTENTION, *BASELINES)
"""Attention from the last prompt token, or from all rows of the question (mean): at the layer itself, summed over the
layers up to it, or times the norm of the values; and baselines that need no attention."""
