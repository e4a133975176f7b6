"""Steps that cannot be done: transformers itself fails, trimmed or not, or vistrim refuses with the reason."""

_NO_TEXT_ALONE = {"padded batch": "transformers: ValueError: `images` are expected"}

# Images with different numbers of tiles cannot be stacked.
_ONE_NUMBER_OF_TILES = dict.fromkeys(
    ("run, two images", "overlay, two images", "untouched, two images", "padded batch"),
    "stack expects each tensor to be equal size",
)

BASELINE: dict[str, dict[str, str]] = {
    # A smaller image is padded to the size of the largest one.
    "emu3": {"padded batch": "transformers: sample 1 of a batch is not what it is alone"},
    "paligemma": _NO_TEXT_ALONE,
    "paligemma-gemma2": _NO_TEXT_ALONE,
    "perception_lm": _ONE_NUMBER_OF_TILES,
}
"""Family and step to a part of the error of transformers."""

_NO_OVERLAY = dict.fromkeys(("overlay", "overlay, two images"), "note: no overlay")

REFUSED: dict[str, dict[str, str]] = {
    "aria": _NO_OVERLAY,
    "chameleon": _NO_OVERLAY | {"calibrate yopo": "error: yopo cannot cut inside the attention of this model"},
    "emu3": _NO_OVERLAY,
    "idefics2": _NO_OVERLAY,
    "paligemma-gemma2": {"calibrate yopo": "error: yopo cannot cut inside the attention of this model"},
    "kimi_k25": {"calibrate yopo": "error: yopo cannot cut attention heads of this model"},
}
"""Family and step to a part of vistrim's message."""


def excused(family: str) -> dict[str, str]:
    """Steps of a family that are expected to fail, and a part of the error."""
    return BASELINE.get(family, {}) | REFUSED.get(family, {})
