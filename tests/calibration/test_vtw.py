"""The search for VTW's layer equals running the method at every layer."""

from functools import cache

import pytest
import torch

from tests import tiny
from tests.closeness import close
from vistrim import VTW, UnsupportedModelError, trim
from vistrim.calibration.vtw import search_layer

PROMPTS = [tiny.batch(tiny.RAGGED), tiny.batch([tiny.sample(2, 7)]), tiny.batch(tiny.SAME_LENGTH)]


@cache
@torch.no_grad()
def by_brute_force(model, positions):
    """The mean divergence of each layer but the first."""
    mean = {}
    for layer in range(1, tiny.DEPTH):
        found = []
        for inputs in PROMPTS:
            full = model(**inputs).logits[:, -1].double().log_softmax(-1)
            with trim(model, VTW(layer, positions)):
                withdrawn = model(**inputs).logits[:, -1].double().log_softmax(-1)
            found.append((withdrawn.exp() * (withdrawn - full)).sum(-1))
        mean[layer] = torch.cat(found).mean().item()
    return mean


@pytest.mark.parametrize("positions", ["original", "renumber"])
@pytest.mark.parametrize(
    ("text", "attention"),
    [("llama", "sdpa"), pytest.param("llama", "eager", marks=pytest.mark.slow), ("qwen2", "sdpa")],
)
@pytest.mark.parametrize("first_layer", [1, 3])
def test_equals_brute_force(text, attention, positions, first_layer):
    model = tiny.shared(text, attention)
    divergences = by_brute_force(model, positions)
    expected = {layer: value for layer, value in divergences.items() if layer >= first_layer}
    threshold = sorted(expected.values())[-2]
    found = search_layer(model, PROMPTS, threshold * 1.0001, first_layer, positions)
    assert list(found.divergences) == list(expected)
    assert close(list(found.divergences.values()), list(expected.values()))
    assert found.layer == min(layer for layer, kl in expected.items() if kl <= threshold)


def test_right_padding():
    model = tiny.shared()
    right = search_layer(model, [tiny.batch(tiny.RAGGED, side="right")], 1e9, 1).divergences
    left = search_layer(model, [tiny.batch(tiny.RAGGED)], 1e9, 1).divergences
    assert close(list(right.values()), list(left.values()))


def test_the_model_is_left_as_it_was():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    hooks = [len(layer._forward_pre_hooks) for layer in model.get_decoder().layers]
    before = tiny.generate(model, inputs)
    search_layer(model, [inputs], 1e9, 2)
    assert torch.equal(tiny.logits(before), tiny.logits(tiny.generate(model, inputs)))
    assert [len(layer._forward_pre_hooks) for layer in model.get_decoder().layers] == hooks


def test_invalid_searches_are_refused():
    model = tiny.shared()
    with pytest.raises(ValueError, match=r"no layer stays below threshold=0.0 .*3: "):
        search_layer(model, PROMPTS[:1], 0.0, 3)
    with pytest.raises(ValueError, match="no prompts"):
        search_layer(model, [])
    with pytest.raises(TypeError, match=r"\[inputs\]"):
        search_layer(model, PROMPTS[0])
    with pytest.raises(ValueError, match="needs an image"):
        search_layer(model, [tiny.batch([tiny.sample(1, 9), tiny.sample(0, 9)])], first_layer=1)
    for first in (0, tiny.DEPTH):
        with pytest.raises(ValueError, match=f"between 1 and {tiny.DEPTH - 1}"):
            search_layer(model, PROMPTS[:1], first_layer=first)
    with pytest.raises(ValueError, match="original or renumber"):
        search_layer(model, PROMPTS[:1], positions="new")
    with trim(model, VTW(2)), pytest.raises(UnsupportedModelError, match="being trimmed"):
        search_layer(model, PROMPTS[:1], first_layer=1)
