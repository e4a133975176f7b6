"""Prompts of which each is a case of its own for methods that read the text around the images."""

import pytest

from tests import tiny

_ONE, _TWO = tiny.sample(1, 9), tiny.sample(2, 9)
_PATCHES = [tiny.IMAGE] * tiny.TOKENS_PER_IMAGE

ENDS_WITH_IMAGE = tiny.Sample([*_ONE.ids[:4], *_PATCHES], _ONE.pixels)
"""Its last token shows an image and is never removed: to a method it is text."""
ONE_WORD = tiny.Sample([*ENDS_WITH_IMAGE.ids, 77], _ONE.pixels)
"""Behind the image there is nothing but the last token."""
TEXT_BETWEEN = tiny.Sample([1, 20, *_PATCHES, 33, 101, 57, 120, *_PATCHES, 88, 12, 71], _TWO.pixels)
"""Text behind the first image that is not behind the last."""
TEXT_ONLY = tiny.sample(0, 30)
BATCHES = {
    "one": [_TWO],
    "ragged": tiny.RAGGED,
    "same-length": tiny.SAME_LENGTH,
    "text-only": [tiny.sample(1, 4), TEXT_ONLY],
    "ends-with-image": [ENDS_WITH_IMAGE, tiny.RAGGED[1]],
    "text-between": [ONE_WORD, TEXT_BETWEEN],
}


def kernels_and_prompts(prompts, eager=("ragged", "same-length")):
    """Pairs of an attention kernel and the name of a batch.

    Every run has a batch with padding, one without, and words between images; the others are slow.
    """
    pairs = [*(("sdpa", name) for name in prompts), *(("eager", name) for name in eager)]
    quick = {("sdpa", "ragged"), ("sdpa", "text-between"), ("eager", eager[-1])}
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow) for pair in pairs]
