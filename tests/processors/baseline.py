"""Steps in which transformers itself fails, trimmed or not."""

_NO_TEXT_ALONE = {"padded batch": "transformers: ValueError: `images` are expected"}

BASELINE: dict[str, dict[str, str]] = {
    "paligemma": _NO_TEXT_ALONE,
    "paligemma-gemma2": _NO_TEXT_ALONE,
}
"""Family and step to a part of the error."""
