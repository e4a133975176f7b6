"""YOPO against a dense reference that computes everything and masks it."""

import pytest

from tests import tiny
from tests.engine.test_against_oracle import TOLERANCE
from tests.methods.structural import Structural
from vistrim import YOPO, trim

HEADS = (
    (True, True, True, True),
    (True, False, True, True),
    (False, False, True, False),
    (False, True, True, False),
    (False, False, False, False),
)
"""Of two heads for each key head: all, one of a pair, a whole pair, one of each pair, none."""

CUTS = {
    "window": {"window": 3},
    "window of one": {"window": 1},
    "window beyond the grid": {"window": 9},
    "heads": {"heads": HEADS},
    "heads counted": {"heads": HEADS, "normalise": "all"},
    "layer": {"layer": 2},
    "ffn": {"ffn": 0.5},
    "together": {"window": 3, "heads": HEADS, "layer": 3, "ffn": 0.5},
    "counted together": {"window": 3, "heads": HEADS, "ffn": 0.3, "normalise": "all"},
}
EACH = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())


def answers(output, inputs):
    return output.sequences[:, inputs["input_ids"].shape[1] :].tolist()


def check(output, inputs, samples, cut, model):
    for b, sample in enumerate(samples):
        expected = Structural(model, **cut).follow(sample.ids, sample.pixels, answers(output, inputs)[b])
        assert (tiny.logits(output)[b] - expected).abs().max() <= TOLERANCE


@EACH
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("samples", [tiny.RAGGED[:1], tiny.RAGGED, tiny.SAME_LENGTH], ids=["one", "ragged", "same"])
def test_equals_the_masked_reference(cut, samples, attention):
    model, inputs = tiny.shared("llama", attention), tiny.batch(samples)
    with trim(model, YOPO(**cut)):
        output = tiny.generate(model, inputs, 5)
    check(output, inputs, samples, cut, model)
