"""Search for a schedule of ST³ at a budget, by divergence from the untouched model's own answers."""
