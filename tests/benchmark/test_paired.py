"""Time marks of phases: their places, and that they change no output."""

import gc
from contextlib import nullcontext

import pytest
import torch
from transformers.cache_utils import Cache

from tests import guides, tiny
from tests.benchmark.subjects import Ticks, traces
from tests.families.zoo import FAMILIES
from vistrim import SGL, ST3, trim
from vistrim.architectures import discover
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.benchmark.paired import in_turn, median_or_none, ratios, time_generation
from vistrim.engine.report import timing

pytestmark = pytest.mark.usefixtures("few_objects")

METHODS = [None, ST3(1, 2, 0.3, horizon=8, interval=1), KeepEverything()]


def timed(model, inputs, new_tokens=5, method=None):
    return generated(model, inputs, new_tokens, method).times


def generated(model, inputs, new_tokens, method=None):
    length = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    return time_generation(model, discover(model), method, inputs, do_sample=False, **length)


@pytest.fixture
def ticks(monkeypatch):
    ticks = Ticks()
    monkeypatch.setattr(timing, "clock", ticks)
    return ticks


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_each_phase_has_its_own_time(ticks, method):
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    model.model.vision_tower.register_forward_pre_hook(ticks.passes(5.0))
    model.model.language_model.register_forward_pre_hook(ticks.passes(3.0))
    times = timed(model, inputs, 4, method)
    assert times.encode == 5.0
    assert times.first_token == 8.0
    assert times.steps == [3.0] * 3
    assert times.total == times.first_token + sum(times.steps)
    assert (times.prefill, times.step) == (3.0, 3.0)


def test_steps_are_separate(ticks):
    model = tiny.build()
    durations = iter([10.0, 1.0, 2.0, 4.0])
    model.model.language_model.register_forward_pre_hook(lambda *_: ticks.passes(next(durations))())
    times = timed(model, tiny.batch([tiny.sample(1, 9)]), 4)
    assert (times.encode, times.first_token, times.steps) == (0.0, 10.0, [1.0, 2.0, 4.0])


def test_one_token_has_no_step(ticks):
    assert timed(tiny.shared(), tiny.batch(tiny.RAGGED), 1).steps == []


def test_an_encoder_inside_an_encoder_counts_once(ticks):
    """Qwen3-VL encodes videos with its encoder of images."""
    family = FAMILIES["qwen3_vl"]
    model, inputs = family.build(), family.batch([family.sample(images=1, videos=1)])
    model.model.visual.register_forward_pre_hook(ticks.passes(5.0))
    model.model.language_model.register_forward_pre_hook(ticks.passes(3.0))
    times = timed(model, inputs, 2)
    assert times.encode == 10.0
    assert times.first_token == 13.0
    # The call and its end, begin and end of both encodings, and two tokens.
    assert len(ticks.read) == 2 + 2 * 2 + 2


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_answer_is_that_of_an_undisturbed_generate(method):
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    with trim(model, method) if method is not None else nullcontext():
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    found = generated(model, inputs, 6, method)
    assert torch.equal(found.output, expected)
    assert (found.report is None) == (method is None)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_nothing_is_left_behind(method):
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    # transformers hooks into the vision tower on its first call.
    model.generate(**inputs, do_sample=False, max_new_tokens=1)
    before = traces(model)
    timed(model, inputs, 3, method)
    assert traces(model) == before
    tower = model.model.vision_tower.register_forward_pre_hook(fails)
    with pytest.raises(KeyError):
        timed(model, inputs, 3, method)
    tower.remove()
    assert traces(model) == before


def fails(*_):
    raise KeyError("tower")


def test_no_cache_outlives_its_run():
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    gc.collect()
    before = sum(issubclass(type(thing), Cache) for thing in gc.get_objects())
    timed(model, inputs, 3, ST3(1, 2, 0.3, horizon=8, interval=1))
    gc.collect()
    assert sum(issubclass(type(thing), Cache) for thing in gc.get_objects()) == before


def test_answers_do_not_end_early():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    answer = model.generate(**inputs, do_sample=False, max_new_tokens=4)[0, -4:].tolist()
    model.generation_config.eos_token_id = answer[1]
    assert len(timed(model, inputs, 7).steps) == 6


def test_a_guide_leaves_the_marks_alone(ticks):
    model, guide, inputs = tiny.build(), guides.build(), tiny.batch(tiny.RAGGED)
    model.model.vision_tower.register_forward_pre_hook(ticks.passes(5.0))
    model.model.language_model.register_forward_pre_hook(ticks.passes(3.0))
    guide.model.vision_tower.register_forward_pre_hook(ticks.passes(100.0))
    guide.model.language_model.register_forward_pre_hook(ticks.passes(7.0))
    times = timed(model, inputs, 4, SGL(guide))
    assert times.encode == 5.0
    assert times.first_token == 100.0 + 4 * 7.0 + 8.0
    assert times.steps == [3.0] * 3


def test_a_guide_that_answers_alone_takes_all_the_time_there_is(ticks):
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    found = time_generation(
        model, discover(model), SGL(guides.shared(), exit_threshold=0.0), inputs, do_sample=False, max_new_tokens=3
    )
    assert found.report.exited == [True]
    assert found.times.first_token == found.times.total
    assert found.times.steps == []


def test_every_side_runs_once_in_each_round_and_begins_in_turn():
    ran = [(number, label) for number, label, _ in in_turn(lambda label, number: None, "abc", [0, 1, 2, 4])]
    assert ran == [
        (number, label) for number, order in ((0, "abc"), (1, "bca"), (2, "cab"), (4, "bca")) for label in order
    ]


def test_rounds_without_a_phase_do_not_count():
    assert ratios([4.0, None, 0.0, 9.0], [2.0, 1.0, 1.0, 3.0]) == (2.0, 3.0)
    assert median_or_none([3.0, None, 1.0, 2.0]) == 2.0
    assert median_or_none([None]) is None
