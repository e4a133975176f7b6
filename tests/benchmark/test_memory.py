import re

import pytest
import torch

from tests.benchmark.small import small
from vistrim.benchmark import memory, named
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.memory import GIB, needs
from vistrim.benchmark.named import _needs_of
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.subject import Wanted
from vistrim.errors import BenchmarkError


class EnoughError(Exception):
    """The check was passed."""


@pytest.fixture
def stop_before_weights(monkeypatch):
    """No test here may make the weights of a large model."""

    def stop(*args, **kwargs):
        raise EnoughError

    monkeypatch.setattr(named, "make_inputs", _without_storage(named.make_inputs))
    monkeypatch.setattr(named, "fill", stop)


def _without_storage(make_inputs):
    return lambda *args: make_inputs(*args[:-1], torch.device("meta"))


def have(monkeypatch, gib):
    monkeypatch.setattr(memory, "free_bytes", lambda device: None if gib is None else int(gib * GIB))


def suggestions(error):
    for option in str(error).rsplit("free: use ", 1)[1].split(", or "):
        yield {key.replace("-", "_"): int(value) for key, value in re.findall(r"--([\w-]+) (\d+)", option)}


@pytest.mark.usefixtures("stop_before_weights")
@pytest.mark.parametrize(
    ("wanted", "gib"),
    [
        (Wanted("llava-1.5-7b", device="cpu"), 22),
        (Wanted("llava-1.5-13b", device="cpu", batch=4), 8),
        (Wanted("qwen2.5-vl-7b", device="cpu"), 1),
        (Wanted("internvl3-8b", device="cpu", dtype="bfloat16", batch=32), 20),
        (Wanted("llava-next-7b", device="cpu", batch=4, attn="eager"), 0.3),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(monkeypatch, wanted, gib):
    have(monkeypatch, gib)
    with pytest.raises(BenchmarkError, match="weights .*KV cache .*activations .* GiB free") as refused:
        make_subject(wanted)
    found = list(suggestions(refused.value))
    assert found
    steps = {"hidden": SHAPES[wanted.model].head_dim}
    for changes in found:
        smaller = Wanted(**{**vars(wanted), **changes})
        with pytest.raises(EnoughError):
            make_subject(smaller)
        if len(changes) == 1:
            # It is the largest.
            (name, value) = changes.popitem()
            with pytest.raises(BenchmarkError):
                make_subject(Wanted(**{**vars(wanted), name: value + steps.get(name, 1)}))


@pytest.mark.usefixtures("stop_before_weights")
def test_full_size_passes_where_there_is_room_and_where_nothing_tells(monkeypatch):
    for gib in (40, None):
        have(monkeypatch, gib)
        with pytest.raises(EnoughError):
            make_subject(Wanted("llava-1.5-7b", device="cpu"))


def test_nothing_fits_into_nothing(monkeypatch):
    have(monkeypatch, 0)
    with pytest.raises(BenchmarkError, match="another machine"):
        make_subject(small())


def test_weights_and_cache_are_those_of_the_model():
    wanted = small(layers=4, batch=2, new_tokens=6)
    subject = make_subject(wanted)
    need = needs(subject.model, subject.inputs, wanted.new_tokens)
    assert need.weights == sum(parameter.nbytes for parameter in subject.model.parameters())
    cache = subject.model.generate(**subject.inputs, max_new_tokens=7, return_dict_in_generate=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert need.cache == held * 5 // 4
    assert need.total > need.weights + need.cache + need.activations


@pytest.mark.parametrize("name", SHAPES)
def test_estimate_before_the_model_is_that_of_the_model(name):
    wanted = small(name, layers=4, distinct_layers=2, batch=2)
    subject = make_subject(wanted)
    before = _needs_of(SHAPES[name], torch.float32)(wanted)
    after = needs(subject.model, subject.inputs, wanted.new_tokens)
    assert before == after
    assert before.weights < _needs_of(SHAPES[name], torch.float32)(small(name, layers=4)).weights


def test_eager_attention_needs_its_scores():
    estimate = _needs_of(SHAPES["llava-1.5-7b"], torch.float32)
    plain, eager = (estimate(small(visual_tokens=1152, attn=attn)) for attn in ("sdpa", "eager"))
    assert eager.activations - plain.activations > 1152**2 * 4
    assert eager.weights == plain.weights


def test_free_memory_of_this_machine():
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or free > 0
    assert memory.free_bytes(torch.device("meta")) is None
