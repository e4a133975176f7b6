"""Steps in which transformers itself fails, trimmed or not."""

BASELINE: dict[str, dict[str, str]] = {}
"""Family and step to a part of the error."""
