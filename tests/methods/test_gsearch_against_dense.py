"""G-Search equals an independent computation with the removed tokens physically gone."""

import pytest

from tests import tiny
from tests.covering import covering
from tests.methods.keep_rate_rules import KeepRates, schedule_file
from tests.methods.prompts import BATCHES, kernels_and_prompts
from tests.methods.test_against_dense import run, two_turns
from vistrim import GSearch

pytestmark = pytest.mark.slow

RATES = {
    "every-layer": (1.0, 0.8, 0.6, 0.4, 0.2),
    # 7.2 of 16 tokens are 8; 14.4 of 32 are 15.
    "rounded-up": (1.0, 0.7, 0.7, 0.45, 0.45),
    # Less than one token is one.
    "one": (1.0, 0.05, 0.01, 0.01, 0.01),
    "exact": (1.0, 0.5, 0.5, 0.25, 0.0625),
    "to-nothing": (1.0, 1.0, 0.5, 0.0, 0.0),
    "late": (1.0, 1.0, 1.0, 1.0, 0.3),
    # 15.2 of 16 tokens are all of them, 30.4 of 32 are not.
    "hardly": (1.0, 0.95, 0.95, 0.95, 0.95),
    "everything": (1.0,) * 5,
}


@covering(1)
@pytest.mark.parametrize(("attention", "prompts"), kernels_and_prompts(BATCHES))
@pytest.mark.parametrize("name", RATES)
def test_equals_the_reference(name, prompts, attention, tmp_path):
    method, rule = GSearch(schedule=schedule_file(tmp_path, "gsearch", RATES[name])), KeepRates(RATES[name])
    run(tiny.shared("llama", attention), method, BATCHES[prompts], rule, tiny.shared("llama", "eager"))


@pytest.mark.parametrize("text", ["mistral", "qwen2"])
@pytest.mark.parametrize("name", ["every-layer", "rounded-up"])
def test_other_decoders(name, text, tmp_path):
    method, rule = GSearch(schedule=schedule_file(tmp_path, "gsearch", RATES[name])), KeepRates(RATES[name])
    run(tiny.shared(text), method, tiny.RAGGED, rule, tiny.shared(text, "eager"))


@pytest.mark.parametrize("name", ["every-layer", "one", "to-nothing"])
def test_second_turn_with_a_new_image(name, tmp_path):
    """Rates are of the new image's tokens."""
    two_turns(GSearch(schedule=schedule_file(tmp_path, "gsearch", RATES[name])), KeepRates(RATES[name]))
