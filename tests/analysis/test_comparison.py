import pytest

import vistrim
from tests import tiny
from vistrim.analysis import compare, comparison

pytestmark = pytest.mark.usefixtures("few_objects")

INPUTS = tiny.batch([tiny.sample(2, 9)])
OPTIONS = {"max_new_tokens": 6, "do_sample": False}


def test_both_sides_are_what_generate_gives():
    model, method = tiny.shared(), vistrim.ST3(drop_per_cut=0.6)
    result = compare(model, INPUTS, method, repeats=2, **OPTIONS)
    prompt = INPUTS["input_ids"].shape[1]
    assert result.untouched.tokens == model.generate(**INPUTS, **OPTIONS)[0, prompt:].tolist()
    with vistrim.trim(model, method) as run:
        assert result.trimmed.tokens == model.generate(**INPUTS, **OPTIONS)[0, prompt:].tolist()
    assert result.report.stages == run.report.stages
    assert result.trimmed.kv_bytes == run.report.kv_bytes
    # Measured on the untouched model's own cache; computed by shape in the report.
    assert result.untouched.kv_bytes == run.report.kv_bytes_full
    assert result.same_answer == (result.untouched.tokens == result.trimmed.tokens)


def test_times_are_consistent():
    result = compare(tiny.shared(), INPUTS, vistrim.Uniform(keep=0.5), repeats=1, **OPTIONS)
    for side in (result.untouched, result.trimmed):
        decoding = 5 * side.decode_seconds_per_token
        assert 0 < side.prefill_seconds < side.prefill_seconds + decoding <= side.total_seconds
    assert result.prefill_speedup == result.untouched.prefill_seconds / result.trimmed.prefill_seconds
    assert result.total_speedup == result.untouched.total_seconds / result.trimmed.total_seconds


def test_an_answer_of_one_token_has_no_decoding():
    result = compare(tiny.shared(), INPUTS, vistrim.ST3(), repeats=1, max_new_tokens=1, do_sample=False)
    assert result.untouched.decode_seconds_per_token is None
    assert result.decode_speedup is None


def test_sides_are_warmed_up_and_begin_in_turn(monkeypatch):
    ran, timed = [], comparison.time_generation

    def noted(model, spec, method, inputs, **generate):
        ran.append((method is not None, generate["max_new_tokens"]))
        return timed(model, spec, method, inputs, **generate)

    monkeypatch.setattr(comparison, "time_generation", noted)
    result = compare(tiny.shared(), INPUTS, vistrim.ST3(), repeats=3, **OPTIONS)
    order = [False, True, True, False, False, True]
    assert ran == [(False, 2), (True, 2), *((trimmed, 6) for trimmed in order)]
    assert result.report.method == str(vistrim.ST3())


def test_keeping_everything_gives_the_same_answer():
    result = compare(tiny.shared(), INPUTS, vistrim.Uniform(keep=1.0), repeats=1, **OPTIONS)
    assert result.same_answer
    assert result.untouched.kv_bytes == result.trimmed.kv_bytes


def test_only_the_first_pair_streams():
    class Streamer:
        def __init__(self, side):
            self.tokens = []
            sides[side] = self

        def put(self, value):
            self.tokens += value.flatten().tolist()

        def end(self):
            pass

    sides = {}
    result = compare(tiny.shared(), INPUTS, vistrim.ST3(), repeats=2, streamer=Streamer, **OPTIONS)
    assert list(sides) == ["untouched", "trimmed"]
    assert sides["untouched"].tokens[-6:] == result.untouched.tokens
    assert sides["trimmed"].tokens[-6:] == result.trimmed.tokens


def test_nothing_stays_on_the_model_even_after_a_failure():
    class Failing:
        def put(self, value):
            raise OSError("the terminal has gone")

    model = tiny.shared()
    for failing in ("untouched", "trimmed"):
        with pytest.raises(OSError, match="has gone"):
            compare(
                model,
                INPUTS,
                vistrim.ST3(),
                streamer=lambda side, failing=failing: Failing() if side == failing else None,
                **OPTIONS,
            )
    decoder = model.get_decoder()
    hooks = (*decoder._forward_hooks.values(), *decoder._forward_pre_hooks.values())
    assert not [hook for hook in hooks if hook.__module__.startswith("vistrim")]
    with vistrim.trim(model, vistrim.ST3()):
        pass


def test_unsupported_comparisons_are_refused():
    with pytest.raises(ValueError, match="one sample"):
        compare(tiny.shared(), tiny.batch(tiny.RAGGED), vistrim.ST3())
    with pytest.raises(ValueError, match="must be at least 1"):
        compare(tiny.shared(), INPUTS, vistrim.ST3(), repeats=0)


def test_everything_but_the_report_as_plain_objects():
    values = compare(tiny.shared(), INPUTS, vistrim.ST3(), repeats=1, **OPTIONS).to_dict()
    assert set(values) == {
        "untouched",
        "trimmed",
        "repeats",
        "prefill_speedup",
        "decode_speedup",
        "total_speedup",
        "same_answer",
    }
    assert values["trimmed"]["tokens"]
