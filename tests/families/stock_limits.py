"""Limitations of transformers itself for a family, found by running the untouched models."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.closeness import close, error
from tests.families.masked_reference import REFERENCE
from tests.families.matrix import prompts, untouched
from tests.families.zoo import FAMILIES, Sample, shared
from tests.tiny import generate, logits

FAILS = {
    ("fuyu", "expanding"): "does not repeat the features of images with the prompt",
    ("llama4", "expanding"): "does not repeat the features of images with the prompt",
    ("glm_ocr-video", "expanding"): "loses the features of videos where it repeats the prompt",
    ("ernie4_5_vl_moe", "no cache"): "does not make its types of tokens longer with the answer",
}
"""Where the untouched model ends in an error."""

MIXES_IMAGES = ("glm4v", "glm46v", "glm4v_moe", "glm_ocr")
"""Where the untouched model gets the images of a prompt that has several into another order as it repeats it."""


def stock_fails(name: str, way: str, record_property: Callable[[str, Any], None], **options: Any) -> bool:
    """Whether the untouched model cannot do this; then it is tried, and noted in the results."""
    if (name, way) not in FAILS:
        return False
    inputs = FAMILIES[name].batch(prompts(name))
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        generate(shared(name), inputs, 3, **options)
    record_property("stock", f"transformers {FAILS[name, way]}")
    return True


def to_repeat(name: str, record_property: Callable[[str, Any], None]) -> tuple[Sample, ...]:
    """Prompts for beam search and several answers: as usual, unless the untouched model mixes up several images."""
    if name not in MIXES_IMAGES:
        return prompts(name)
    family = FAMILIES[name]
    record_property("note", "one image per prompt; transformers mixes up several as it repeats the prompt")
    return family.sample(1, 9), family.sample(1, 14, seed=1), family.sample(0, 5, seed=2)


def close_in_a_batch(name: str, found: Tensor, expected: Tensor) -> bool:
    """Whether a sample of a batch equals the reference, which reads it alone."""
    # What the untouched model rounds is only computed where it matters.
    return error(found, expected) <= REFERENCE or close(found, expected, tolerance(name))


@cache
def tolerance(name: str) -> float:
    """Allowed `error` against the reference, which reads each sample alone.

    Larger only where the untouched model, too, computes something else in a batch (HunyuanOCR numbers the images of a
    batch, not of a sample).
    """
    family, model = FAMILIES[name], shared(name)
    together = untouched(name, "sdpa", "padded").logits
    alone = [logits(generate(model, family.batch([s]), together.shape[1])) for s in prompts(name)]
    own = error(together, torch.cat(alone))
    assert own <= 1e-3
    return max(REFERENCE, 5 * own)
