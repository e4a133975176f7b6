"""Heads cut into blocks, and the structure of a layer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistrim.core.structure import LayerStructure, head_blocks, runs


@st.composite
def heads_and_kv_heads(draw):
    group, kv_heads = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    heads = draw(st.lists(st.booleans(), min_size=group * kv_heads, max_size=group * kv_heads))
    return heads, kv_heads


@given(heads_and_kv_heads())
def test_blocks_hold_every_head_once_with_the_key_heads_that_serve_it(given_heads):
    heads, kv_heads = given_heads
    group = len(heads) // kv_heads
    for blocks, wanted in zip(head_blocks(heads, kv_heads), (True, False), strict=True):
        served = []
        for block in blocks:
            queries, keys = range(len(heads))[block.query], range(kv_heads)[block.key]
            per_key = len(queries) // len(keys)
            assert per_key * len(keys) == len(queries)
            served += [(head, keys[i // per_key]) for i, head in enumerate(queries)]
        assert served == [(head, head // group) for head, is_active in enumerate(heads) if is_active == wanted]


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 4))
def test_runs_are_the_features_of_the_flagged_heads(flags, size):
    features = [i for some in runs(flags, size) for i in range(len(flags) * size)[some]]
    assert features == [i for i in range(len(flags) * size) if flags[i // size]]
    assert len(runs(flags, size)) <= (len(flags) + 1) // 2


@given(heads_and_kv_heads())
def test_a_key_head_is_needed_if_one_of_its_heads_is(given_heads):
    heads, kv_heads = given_heads
    needed = LayerStructure(heads=tuple(heads)).seeing_kv_heads(len(heads), kv_heads)
    active, _ = head_blocks(heads, kv_heads)
    assert {i for i, is_needed in enumerate(needed) if is_needed} == {
        i for block in active for i in range(kv_heads)[block.key]
    }


@pytest.mark.parametrize(("share", "neurons"), [(1.0, 48), (0.5, 24), (0.3, 14), (0.33, 16), (0.001, 1)])
def test_neurons(share, neurons):
    assert LayerStructure(ffn=share).neurons(48) == neurons


def test_structures_that_skip_nothing():
    assert LayerStructure().is_full
    assert LayerStructure(heads=(True, True)).is_full
    for cut in ({"window": 99}, {"heads": (True, False)}, {"ffn": 0.9}):
        assert not LayerStructure(**cut).is_full
