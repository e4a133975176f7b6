"""Trimming equals an independent full-length computation in which removed tokens are hidden."""

from functools import cache

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.oracle import Oracle, st3_schedule
from vistrim import PVTP, ST3, VTA, trim
from vistrim.engine.releases import CACHE

METHODS = {
    "pvtp": (PVTP(1, 2, 0.5), {"start": 1, "stride": 2, "ratio": 0.5}),
    "pvtp-every-layer": (PVTP(2, 1, 0.3), {"start": 2, "stride": 1, "ratio": 0.3}),
    "vta": (
        VTA("linear", 8, 0.0, interval=1),
        {"start": 9, "stride": 1, "ratio": 0.0, "decay": "linear", "horizon": 8},
    ),
    "vta-interval": (
        VTA("exponential", 6, 0.2, interval=3),
        {
            "start": 9,
            "stride": 1,
            "ratio": 0.0,
            "decay": "exponential",
            "horizon": 6,
            "floor": 0.2,
            "interval": 3,
        },
    ),
    "st3": (
        ST3(1, 2, 0.3, "cosine", 7, 0.1, interval=1),
        {"start": 1, "stride": 2, "ratio": 0.3, "decay": "cosine", "horizon": 7, "floor": 0.1},
    ),
    "st3-to-nothing": (
        ST3(1, 1, 0.6, "linear", 4, 0.0, interval=1),
        {"start": 1, "stride": 1, "ratio": 0.6, "decay": "linear", "horizon": 4},
    ),
}


def follow(oracle: Oracle, sample: tiny.Sample, tokens: list[int]) -> torch.Tensor:
    """Logits of every step when the given answer is read out."""
    steps = [oracle.prefill(sample.ids, sample.pixels if len(sample.pixels) else None)]
    steps += [oracle.decode(token) for token in tokens[:-1]]
    return torch.stack(steps)


def assert_equal(output, inputs, samples, schedule, text, **oracle_options):
    got = tiny.logits(output)
    lengths = []
    for b, sample in enumerate(samples):
        oracle = Oracle(tiny.shared(text, "eager"), st3_schedule(**schedule), **oracle_options)
        answer = output.sequences[b, inputs["input_ids"].shape[1] :].tolist()
        expected = follow(oracle, sample, answer)
        assert close(got[b], expected)
        lengths.append(oracle.kv_lengths())
    stored = [layer.keys.shape[-2] for layer in output[CACHE].layers]
    return stored, lengths


ONE = tiny.sample(2, 9)


@cache
def untouched_logits(text, attention):
    return tiny.logits(tiny.generate(tiny.shared(text, attention), tiny.batch([ONE])))


@covering
@pytest.mark.parametrize("text", tiny.TEXTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", METHODS)
def test_one_sample(name, attention, text):
    method, schedule = METHODS[name]
    sample, inputs = ONE, tiny.batch([ONE])
    model = tiny.shared(text, attention)
    with trim(model, method) as run:
        output = tiny.generate(model, inputs)
    stored, lengths = assert_equal(output, inputs, [sample], schedule, text)
    assert stored == lengths[0]
    assert run.report.kv_tokens_per_layer == [[n] for n in stored]
    assert (untouched_logits(text, attention) - tiny.logits(output)).abs().max() > 0.01


@covering
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("samples", [tiny.RAGGED, tiny.SAME_LENGTH, [tiny.sample(1, 4), tiny.sample(0, 30)]])
def test_batch_equals_its_samples_alone(samples, name, attention):
    method, schedule = METHODS[name]
    inputs = tiny.batch(samples)
    model = tiny.shared("llama", attention)
    with trim(model, method) as run:
        output = tiny.generate(model, inputs, 5)
    stored, lengths = assert_equal(output, inputs, samples, schedule, "llama")
    by_layer = [list(n) for n in zip(*lengths, strict=True)]
    assert run.report.kv_tokens_per_layer == by_layer
    # As wide as the widest sample: plus padding only where a layer was never cut.
    assert all(width >= max(n) for width, n in zip(stored, by_layer, strict=True))
    for layer, width in enumerate(stored):
        if max(run.report.visual_tokens_per_layer[layer]) < max(run.report.visual_tokens):
            assert width == max(by_layer[layer])
