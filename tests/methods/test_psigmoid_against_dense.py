"""P-Sigmoid equals an independent computation with the removed tokens physically gone."""

import pytest

from tests import tiny
from tests.covering import covering
from tests.methods.keep_rate_rules import KeepRates, schedule_file, sigmoid_rates
from tests.methods.prompts import BATCHES, kernels_and_prompts
from tests.methods.test_against_dense import MANY_IMAGES, run, two_turns
from vistrim import PSigmoid

pytestmark = pytest.mark.slow

CURVES = {
    "middle": (0.5, 1.0),
    "small": (0.3, 3.0),
    "flat": (0.7, 0.2),
    # The layers behind the first share 1.25 of 4.
    "little": (0.25, 0.5),
    "most": (0.9, 2.0),
    # The second layer would have a rate above 1: the third has what is left over.
    "step": (0.46, 8.0),
}
PROMPTS = BATCHES | {"many-images": MANY_IMAGES}


def case(name, depth=tiny.DEPTH):
    budget, kappa = CURVES[name]
    return PSigmoid(mean_keep=budget, kappa=kappa), KeepRates(sigmoid_rates(depth, budget, kappa))


@covering(1)
@pytest.mark.parametrize(("attention", "prompts"), kernels_and_prompts(PROMPTS))
@pytest.mark.parametrize("name", CURVES)
def test_equals_the_reference(name, prompts, attention):
    method, rule = case(name)
    run(tiny.shared("llama", attention), method, PROMPTS[prompts], rule, tiny.shared("llama", "eager"))


@pytest.fixture(scope="module")
def deep_models():
    return [tiny.build(attention=attention, num_hidden_layers=12) for attention in ("sdpa", "eager")]


@pytest.mark.parametrize("name", CURVES)
def test_deep_decoder(name, deep_models):
    model, oracle_model = deep_models
    method, rule = case(name, depth=12)
    run(model, method, tiny.RAGGED, rule, oracle_model)


@pytest.mark.parametrize("prompts", ["ragged", "text-only"])
def test_searched_schedule(prompts, tmp_path):
    rates = (1.0, 0.9, 0.55, 0.2, 0.1)
    method = PSigmoid(schedule=schedule_file(tmp_path, "psigmoid", rates))
    run(tiny.shared(), method, PROMPTS[prompts], KeepRates(rates), tiny.shared("llama", "eager"))


@pytest.mark.parametrize("name", ["middle", "small"])
def test_second_turn_with_a_new_image(name):
    two_turns(*case(name))
