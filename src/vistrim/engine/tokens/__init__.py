"""Remaining tokens of a trimmed sequence: their rows, positions and masks."""
