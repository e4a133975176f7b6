"""Cache layers with spare room are bit-identical to transformers' own, and write without copying."""

import copy
import pickle
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from vistrim import PVTP, VTA, compose, trim
from vistrim.engine.cache import spare_room
from vistrim.engine.cache.spare_room import GrowingLayer, room_for

BATCH, HEADS, WIDTH = 2, 3, 4


def states(length, seed=0, batch=BATCH):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, HEADS, length, width, generator=generator) for width in (WIDTH, WIDTH + 1))


@torch.no_grad()
def filled(length=40):
    """A layer after the prompt and one step."""
    layer = GrowingLayer()
    layer.update(*states(length))
    layer.update(*states(1, seed=1))
    return layer


ACTIONS = {
    "step": lambda layer, seed: layer.update(*states(1, seed, layer.keys.shape[0])),
    "several": lambda layer, seed: layer.update(*states(5, seed, layer.keys.shape[0])),
    "crop": lambda layer, seed: layer.crop(-2),
    "reorder": lambda layer, seed: layer.reorder_cache(torch.arange(layer.keys.shape[0]).flip(0)),
    "repeat": lambda layer, seed: layer.batch_repeat_interleave(2) if layer.keys.shape[0] < 8 else None,
    "select": lambda layer, seed: layer.batch_select_indices(torch.tensor([0])),
}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=40), st.integers(3, 60))
def test_equals_the_stock_layer(names, length):
    stock, layer = DynamicLayer(), GrowingLayer()
    with torch.no_grad():
        for one in (stock, layer):
            one.update(*states(length))
        for seed, name in enumerate(names):
            if name == "crop" and stock.keys.shape[2] <= 2:
                continue
            outputs = [ACTIONS[name](one, seed) for one in (stock, layer)]
            if outputs[0] is not None:
                assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
            assert torch.equal(stock.keys, layer.keys)
            assert torch.equal(stock.values, layer.values)


@torch.no_grad()
def test_steps_write_into_the_same_memory_until_it_is_full():
    layer = GrowingLayer()
    layer.update(*states(40))
    before, pointers = layer.keys, []
    expected = before.clone()
    for seed in range(room_for(40) + 1):
        layer.update(*states(1, seed))
        pointers.append(layer.keys.data_ptr())
    assert set(pointers[:-1]) == {before.data_ptr()}
    assert pointers[-1] != before.data_ptr()
    # Whoever still holds an earlier state sees it unchanged.
    assert torch.equal(before, expected)


@torch.no_grad()
def test_room_is_a_small_part():
    layer = filled(3200)
    held = layer.keys.nbytes
    assert layer.keys.untyped_storage().nbytes() <= 1.04 * held
    layer.take_columns(torch.arange(100).expand(BATCH, -1))
    assert layer.keys.untyped_storage().nbytes() == BATCH * HEADS * (100 + room_for(100)) * WIDTH * 4


@torch.no_grad()
def test_taking_columns_holds_these_and_grows_on():
    layer, index = filled(), torch.tensor([[1, 4, 40], [0, 2, 40]])
    wanted = torch.stack([layer.keys[b][:, index[b]] for b in range(BATCH)])
    layer.take_columns(index)
    assert torch.equal(layer.keys, wanted)
    pointer, new = layer.keys.data_ptr(), states(1, seed=7)
    layer.update(*new)
    assert layer.keys.data_ptr() == pointer
    assert torch.equal(layer.keys, torch.cat([wanted, new[0]], 2))


def pickled(layer):
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@torch.no_grad()
def test_copies_and_their_original_go_on_apart(copied):
    first = filled()
    old = first.keys.clone()
    copies = [first, copied(first), copied(first)]
    copies.append(copied(copies[1]))
    for turn in range(2):
        for number, layer in enumerate(copies):
            layer.update(*states(1, 10 * turn + number))
    for number, layer in enumerate(copies):
        assert torch.equal(layer.keys, torch.cat([old, states(1, number)[0], states(1, 10 + number)[0]], 2))


@pytest.mark.parametrize("action", ["reorder", "repeat", "select"])
@torch.no_grad()
def test_replaced_tensors_are_released(action):
    layer = filled()
    keys, values = (weakref.ref(room.buffer) for room in layer.room)
    ACTIONS[action](layer, 0)
    assert keys() is None
    assert values() is None


@torch.no_grad()
def test_other_number_types_and_batches_go_as_in_the_stock_layer():
    stock, layer = DynamicLayer(), GrowingLayer()
    for one in (stock, layer):
        one.update(*(state.bfloat16() for state in states(40)))
        one.update(*(state.bfloat16() for state in states(1, seed=1)))
        one.update(*states(1, seed=2))
    assert layer.keys.dtype == stock.keys.dtype == torch.float32
    assert torch.equal(layer.keys, stock.keys)
    with pytest.raises(RuntimeError):
        layer.update(*states(1, batch=1))
    assert torch.equal(layer.keys, stock.keys)


def test_tensors_saved_by_autograd_are_not_written_to():
    layer = filled()
    keys = layer.keys
    query = torch.randn(BATCH, HEADS, 1, WIDTH, requires_grad=True)
    weights = query @ keys.transpose(2, 3)
    layer.update(*states(1, seed=3))
    weights.sum().backward()
    assert close(query.grad, keys.sum(2, keepdim=True))
    assert layer.keys.data_ptr() != keys.data_ptr()


def test_goes_on_in_and_outside_of_inference_mode():
    with torch.inference_mode():
        layer = GrowingLayer()
        layer.update(*states(40))
        layer.update(*states(1, seed=1))
    with torch.no_grad():
        layer.update(*states(1, seed=2))
        layer.update(*states(1, seed=3))
    with torch.inference_mode():
        layer.update(*states(1, seed=4))
        expected = torch.cat([states(40)[0], *(states(1, seed)[0] for seed in (1, 2, 3, 4))], 2)
        assert torch.equal(layer.keys, expected)


@torch.no_grad()
def test_a_layer_that_was_reset_starts_anew():
    layer = filled()
    layer.reset()
    layer.update(*states(3))
    assert torch.equal(layer.keys, states(3)[0])


GENERATIONS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
}


@covering(1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("way", GENERATIONS)
def test_generations_are_the_same_with_and_without_room(way, attention, monkeypatch):
    samples = [tiny.sample(2, 9)] if way == "prompt lookup" else tiny.RAGGED
    method = PVTP(1, 2, 0.5) if way == "prompt lookup" else compose(PVTP(1, 2, 0.5), VTA("linear", 8, 0.0, interval=1))
    outputs = []
    # Always, never, and from the middle of an answer on or up to it.
    for worth in (0, 1 << 40, 3 * 30 * 64):
        monkeypatch.setattr(spare_room, "WORTH_ROOM", worth)
        torch.manual_seed(0)
        with trim(tiny.shared(attention=attention), method) as run:
            outputs.append(tiny.generate(tiny.shared(attention=attention), tiny.batch(samples), 12, **GENERATIONS[way]))
        outputs[-1] = outputs[-1].sequences, outputs[-1].logits, run.report.kv_tokens_per_step, run.report.kv_bytes
    sequences, logits, *held = outputs[0]
    for other_sequences, other_logits, *other_held in outputs[1:]:
        assert torch.equal(sequences, other_sequences)
        assert all(torch.equal(a, b) for a, b in zip(logits, other_logits, strict=True))
        assert held == other_held
