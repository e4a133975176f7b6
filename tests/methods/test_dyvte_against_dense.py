"""DyVTE equals an independent computation with the removed tokens physically gone."""

from functools import cache

import pytest
import torch

from tests import tiny
from tests.covering import covering
from tests.methods.dense_reference import Dense
from tests.methods.dyvte_rules import DyVTE as Rule
from tests.methods.prompts import BATCHES, kernels_and_prompts
from tests.methods.test_against_dense import run, two_turns
from vistrim import DyVTE
from vistrim.architectures import discover
from vistrim.methods.base.artifacts import save_part

pytestmark = pytest.mark.slow

WIDTH, INPUTS = 6, 64


def random_routers(seed):
    generator = torch.Generator().manual_seed(seed)
    routers = {}
    for layer in range(tiny.DEPTH):
        routers[f"layers.{layer}.w1"] = torch.randn(WIDTH, INPUTS, generator=generator)
        routers[f"layers.{layer}.w2"] = torch.randn(2, WIDTH, generator=generator)
    return routers


def fixed_routers(*exits):
    """All samples exit after the first of these layers: GELU(x) + GELU(-x) is never negative."""
    routers = random_routers(0)
    for layer in range(tiny.DEPTH):
        half = routers[f"layers.{layer}.w1"][: WIDTH // 2]
        routers[f"layers.{layer}.w1"] = torch.cat([half, -half])
        winner = torch.tensor([[0.0], [1.0]] if layer in exits else [[1.0], [0.0]])
        routers[f"layers.{layer}.w2"] = winner.repeat(1, WIDTH)
    return routers


ROUTERS = {
    **{f"random-{seed}": random_routers(seed) for seed in (3, 10, 37, 39, 42)},
    "never": fixed_routers(),
    "at-once": fixed_routers(0, 1, 2, 3, 4),
    "later": fixed_routers(2),
    "last": fixed_routers(3),
    # Behind the last layer there is nothing to leave, so that its router is not asked.
    "too-late": fixed_routers(4),
}


@cache
def exits(name, prompts):
    """First layer without visual tokens, per sample."""
    rule = Rule(ROUTERS[name])
    found = [first_without(alone_on(sample, rule)) for sample in BATCHES[prompts]]
    assert min(rule.margins) > 1e-3
    return found


def alone_on(sample, rule):
    dense = Dense(tiny.shared("llama", "eager"), rule)
    dense.prefill(sample.ids, sample.pixels)
    return dense


def first_without(dense):
    return next((layer for layer, kept in enumerate(dense.kept) if not kept), None)


def method_for(model, name, folder):
    path = folder / "routers.safetensors"
    save_part(path, "dyvte", discover(model).facts, ROUTERS[name], {})
    return DyVTE(str(path))


@covering(1)
@pytest.mark.parametrize(("attention", "prompts"), kernels_and_prompts(BATCHES))
@pytest.mark.parametrize("name", ROUTERS)
def test_equals_the_reference(name, prompts, attention, tmp_path):
    model = tiny.shared("llama", attention)
    method, rule = method_for(model, name, tmp_path), Rule(ROUTERS[name])
    report, alone = run(model, method, BATCHES[prompts], rule, tiny.shared("llama", "eager"))
    told = exits(name, prompts)
    assert [first_without(dense) for dense in alone] == told
    assert report.exit_layers == [
        layer if sample.visual else None for layer, sample in zip(told, BATCHES[prompts], strict=True)
    ]
    assert report.visual_tokens_per_layer == [
        [len(kept[layer]) for kept in (dense.kept for dense in alone)] for layer in range(tiny.DEPTH)
    ]


def test_the_cases_exit_everywhere():
    """And the samples of a batch at different layers."""
    random = [exits(name, prompts) for name in ROUTERS if name.startswith("random") for prompts in BATCHES]
    assert {layer for found in random for layer in found} >= {1, 2, 3, 4, None}
    assert sum(len(set(found)) > 1 for found in random) > 10
    assert exits("never", "ragged") == exits("too-late", "ragged") == [None] * 3
    assert exits("last", "ragged") == [4] * 3


@covering(1)
@pytest.mark.parametrize("text", ["mistral", "qwen2"])
@pytest.mark.parametrize("name", ["random-10", "later"])
def test_other_decoders(name, text, tmp_path):
    model = tiny.shared(text)
    method, rule = method_for(model, name, tmp_path), Rule(ROUTERS[name])
    run(model, method, tiny.RAGGED, rule, tiny.shared(text, "eager"))
    assert min(rule.margins) > 1e-3


@pytest.mark.parametrize("name", ["random-3", "random-10", "random-39", "later"])
def test_second_turn_with_a_new_image(name, tmp_path):
    """The routers see the text behind the new image."""
    two_turns(method_for(tiny.shared(), name, tmp_path), Rule(ROUTERS[name]))
