"""YOPO equals an independent computation with the removed tokens physically gone."""

import pytest
import torch

from tests import tiny
from tests.covering import covering
from tests.methods import yopo_rules
from tests.methods.prompts import BATCHES, kernels_and_prompts
from tests.methods.test_against_dense import run, two_turns
from vistrim import YOPO

pytestmark = pytest.mark.slow

HEADS = {
    "most": torch.rand(tiny.DEPTH, 4, generator=torch.Generator().manual_seed(0)) < 0.75,
    "half": torch.rand(tiny.DEPTH, 4, generator=torch.Generator().manual_seed(1)) < 0.5,
    "none": torch.zeros(tiny.DEPTH, 4, dtype=torch.bool),
    # Of two heads that share their keys and values, one works; then a pair of which none does.
    "pairs": torch.tensor([[1, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool(),
}
CASES = {
    "self": {"window": 1},
    "window": {"window": 3},
    "wide": {"window": 5},
    # Bidirectional within an image, and images apart.
    "whole-image": {"window": 7},
    "heads": {"heads": "half"},
    "heads-pairs": {"heads": "pairs"},
    "heads-none": {"heads": "none"},
    "heads-all": {"heads": "half", "normalize": "all"},
    "heads-pairs-all": {"heads": "pairs", "normalize": "all"},
    "layer": {"layer": 2},
    "first-layer": {"layer": 1},
    "ffn": {"ffn": 0.5},
    # 14.4 of 48 neurons are 14.
    "ffn-rounded-down": {"ffn": 0.3},
    "together": {"window": 3, "heads": "most", "layer": 3, "ffn": 0.5},
    "together-all": {"window": 5, "heads": "pairs", "ffn": 0.25, "normalize": "all"},
    "window-heads": {"window": 3, "heads": "half"},
    "window-layer": {"window": 1, "layer": 2},
}
# Whether a last image token, which is text to a method, has neighbors is not said anywhere.
PROMPTS = {name: samples for name, samples in BATCHES.items() if name != "ends-with-image"}


def case(name):
    options = dict(CASES[name])
    active = HEADS[options.pop("heads")].tolist() if "heads" in options else None
    heads = None if active is None else tuple(map(tuple, active))
    return YOPO(heads=heads, **options), yopo_rules.YOPO(active, **options)


@covering(1)
@pytest.mark.parametrize(("attention", "prompts"), kernels_and_prompts(PROMPTS))
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name, prompts, attention):
    method, rule = case(name)
    run(tiny.shared("llama", attention), method, PROMPTS[prompts], rule, tiny.shared("llama", "eager"))


@covering(1)
@pytest.mark.parametrize("text", ["mistral", "qwen2"])
@pytest.mark.parametrize("name", ["together", "together-all"])
def test_other_decoders(name, text):
    method, rule = case(name)
    run(tiny.shared(text), method, tiny.RAGGED, rule, tiny.shared(text, "eager"))


@pytest.mark.parametrize("name", ["whole-image", "heads", "heads-all", "together", "together-all"])
def test_second_turn_with_a_new_image(name):
    """New visual tokens do not see those of the earlier prompt; text of the new prompt does, in active heads."""
    two_turns(*case(name))
