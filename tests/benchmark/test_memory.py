import re
from dataclasses import replace

import pytest
import torch

from tests.benchmark.small_shapes import small
from tests.families.depth import slow_beside
from vistrim.benchmark import memory, named
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.memory import GIB, needs
from vistrim.benchmark.named import _needs_of, _smaller
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.subject import Wanted
from vistrim.engine.releases import CACHE
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


@pytest.mark.parametrize(
    ("wanted", "gib", "names"),
    [
        (small(layers=4, hidden=1024, visual_tokens=2304, batch=8), 2.4, {"batch", "layers", "hidden"}),
        (small("qwen2.5-vl-7b", layers=6, hidden=1792, batch=64), 3.4, {"batch distinct_layers"}),
        (small("internvl3-8b", layers=4, hidden=1024, dtype="bfloat16"), 0.78, {"distinct_layers", "layers", "hidden"}),
        (small("llava-next-7b", layers=4, hidden=1024, batch=4), 0.1, {"batch distinct_layers hidden layers"}),
    ],
)
def test_what_does_not_fit_is_refused_with_the_largest_that_does(monkeypatch, wanted, gib, names):
    have(monkeypatch, gib)
    with pytest.raises(BenchmarkError, match=r"weights .*KV cache .*activations .* GiB free") as refused:
        make_subject(wanted)
    found = list(suggestions(refused.value))
    assert {" ".join(sorted(changes)) for changes in found} == names
    dtype = torch.float32 if wanted.dtype == "auto" else torch.bfloat16
    needed = _needs_of(SHAPES[wanted.model], dtype)
    for changes in found:
        assert needed(replace(wanted, **changes)).total <= gib * GIB
        # Of several changes, only the last was searched.
        name = max(changes, key=[*_smaller(SHAPES[wanted.model], wanted)].index)
        larger = changes[name] + (SHAPES[wanted.model].head_dim if name == "hidden" else 1)
        assert needed(replace(wanted, **{**changes, name: larger})).total > gib * GIB


@pytest.mark.usefixtures("stop_before_weights")
def test_full_size_passes_where_there_is_room(monkeypatch):
    have(monkeypatch, 40)
    with pytest.raises(EnoughError):
        make_subject(Wanted("llava-1.5-7b", device="cpu"))


@pytest.mark.usefixtures("stop_before_weights")
def test_everything_passes_where_nothing_tells(monkeypatch):
    have(monkeypatch, None)
    with pytest.raises(EnoughError):
        make_subject(small())


def test_nothing_fits_into_nothing(monkeypatch):
    have(monkeypatch, 0)
    with pytest.raises(BenchmarkError, match="another machine"):
        make_subject(small())


def test_weights_and_cache_are_those_of_the_model():
    wanted = small(layers=4, batch=2, new_tokens=6)
    subject = make_subject(wanted)
    need = needs(subject.model, subject.inputs, wanted.new_tokens)
    assert need.weights == sum(parameter.nbytes for parameter in subject.model.parameters())
    cache = subject.model.generate(**subject.inputs, max_new_tokens=7, return_dict_in_generate=True)[CACHE]
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert need.cache == held * 5 // 4
    assert need.total > need.weights + need.cache + need.activations


@pytest.mark.parametrize("name", slow_beside(["llava-1.5-7b", "qwen2.5-vl-7b"], SHAPES))
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


@pytest.mark.parametrize(
    ("names", "limit", "left"),
    [
        (("memory.max", "memory.current", "memory.stat"), "1000", [700]),
        (("memory.max", "memory.current", "memory.stat"), "max", []),
        (("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"), "1000", [700]),
    ],
)
def test_what_a_container_has_left(names, limit, left, tmp_path):
    """Of 1000 bytes 400 are in use, 100 of them by files that can be read again."""
    assert memory.left_in_container(tmp_path) == []
    for name, text in zip(names, (f"{limit}\n", "400\n", "active_file 7\ninactive_file 100\n"), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.left_in_container(tmp_path) == left
