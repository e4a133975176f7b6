"""Mistral-like layers that look back over a window: what is trimmed and what leaves the window do not mix."""

import pytest
import torch
from transformers import DynamicCache

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.test_against_oracle import follow
from tests.engine.test_generation_modes import EACH, answers
from tests.oracle import Oracle, st3_schedule
from vistrim import FastV, UnsupportedGenerationError, trim
from vistrim.engine.releases import CACHE


@covering(1)
@EACH
@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("window", [12, 20, 24, 26, 27, 30, 40])
def test_sliding_window(method, schedule, attention, window):
    """The window is shorter than the prompt of 26 tokens, as long, passed while decoding, or never reached."""
    samples = [tiny.sample(1, 9), tiny.sample(0, 20)]
    model, eager = (tiny.build("mistral", kernel, sliding_window=window) for kernel in (attention, "eager"))
    for chosen in (samples[:1], samples):
        inputs = tiny.batch(chosen)
        with trim(model, method) as run:
            first = tiny.generate(model, inputs)
            turn = tiny.follow_up(first, inputs, torch.tensor([[5, 6, 7]] * len(chosen)))
            second = tiny.generate(model, turn, 4)
        warned = {word for word in ("annealed", "ranked") for w in run.reports[0].warnings if word in w}
        assert ("annealed" in warned) == (method.acts_in_decode and window <= 33)
        assert ("ranked" in warned) == (window < 26)
        for b, sample in enumerate(chosen):
            if len(chosen) > 1 and method.acts_in_decode and sample.visual:
                # Padding counts towards the batch's window, so annealing ends earlier than alone.
                continue
            oracle = Oracle(eager, st3_schedule(**schedule))
            expected = follow(oracle, sample, answers(first, inputs)[b])
            assert close(tiny.logits(first)[b], expected)
            new = tiny.Sample([*answers(first, inputs)[b][-1:], 5, 6, 7], sample.pixels[:0])
            expected = follow(oracle, new, answers(second, turn)[b])
            assert close(tiny.logits(second)[b], expected)


@covering(1)
@EACH
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sliding_window_with_a_plain_cache(method, schedule, attention):
    sample = tiny.sample(1, 9)
    inputs = tiny.batch([sample])
    model = tiny.build("mistral", attention, sliding_window=24)
    with trim(model, method):
        output = tiny.generate(model, inputs, **{CACHE: DynamicCache()})
    oracle = Oracle(tiny.build("mistral", "eager", sliding_window=24), st3_schedule(**schedule))
    expected = follow(oracle, sample, answers(output, inputs)[0])
    assert close(tiny.logits(output)[0], expected)


def test_prompt_lookup_is_refused():
    """Taking drafted tokens back would need those that the window has evicted."""
    model, inputs = tiny.build("mistral", sliding_window=20), tiny.batch([tiny.sample(1, 9)])
    with trim(model, FastV(2)) as run:
        with pytest.raises(UnsupportedGenerationError, match="sliding window: leave out `prompt_lookup_num_tokens`"):
            tiny.generate(model, inputs, prompt_lookup_num_tokens=3)
        tiny.generate(model, inputs)
    assert len(run.reports) == 1
