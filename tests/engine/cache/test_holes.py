"""Eviction that moves columns within the memory of a layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.closeness import close
from vistrim import ST3, VTA, trim
from vistrim.engine.cache.holes import fill_holes
from vistrim.engine.cache.spare_room import GrowingLayer

BATCH = 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 99))
def test_tokens_are_where_the_order_says(evictions, behind, seed):
    generator = torch.Generator().manual_seed(seed)
    width = 12
    tokens = torch.arange(width + behind).expand(BATCH, -1)
    columns, order = tokens.clone(), None
    for evicted in evictions:
        if evicted >= width:
            break
        kept = torch.rand(BATCH, width, generator=generator).argsort(1)[:, evicted:].sort(1).values
        moves = fill_holes(kept, order, width, behind)
        assert moves.sources.shape == moves.targets.shape == (BATCH, evicted + behind)
        assert all(len(set(row)) == len(row) for row in moves.targets.tolist())
        columns = columns.scatter(1, moves.targets, columns.gather(1, moves.sources))[:, : width - evicted + behind]
        tokens = torch.cat([tokens.gather(1, kept), tokens[:, width:]], 1)
        width, order = width - evicted, moves.order
        assert torch.equal(columns.gather(1, order), tokens[:, :width])
        assert torch.equal(columns[:, width:], tokens[:, width:])


@torch.no_grad()
def grown(columns=40):
    layer = GrowingLayer()
    for length in (columns - 1, 1):
        layer.update(*(torch.randn(BATCH, 3, length, width) for width in (4, 5)))
    return layer


@torch.no_grad()
def test_columns_move_only_in_memory_that_no_one_else_holds():
    layer = grown()
    before, pointer = layer.keys.clone(), layer.keys.data_ptr()
    assert layer.can_move_columns(30)
    seen = layer.keys[:, :1]
    assert not layer.can_move_columns(30)
    del seen
    assert layer.can_move_columns(30)
    # Half of the memory would be unused.
    assert not layer.can_move_columns(20)
    with torch.enable_grad():
        assert not layer.can_move_columns(30)
    layer.move_columns(torch.tensor([[39], [38]]), torch.tensor([[0], [2]]), 38)
    assert layer.keys.data_ptr() == pointer
    before[0, :, 0], before[1, :, 2] = before[0, :, 39], before[1, :, 38]
    assert torch.equal(layer.keys, before[:, :, :38])


@pytest.mark.parametrize(
    "method", [VTA("linear", 8, 0.1, interval=1), ST3(1, 1, 0.2, "linear", 8, 0.1, 2, "answer", 0.5)]
)
def test_generation_is_that_of_copied_columns(method, monkeypatch):
    model = tiny.shared()
    inputs = tiny.batch([tiny.sample(2, 9), tiny.sample(2, 9, seed=1)])
    moved = []
    move = GrowingLayer.move_columns
    monkeypatch.setattr(GrowingLayer, "move_columns", lambda *given: (moved.append(1), move(*given)))

    def generated():
        with trim(model, method) as run:
            output = tiny.generate(model, inputs, 10)
        return tiny.logits(output), run.report

    logits, report = generated()
    assert moved
    monkeypatch.setattr(GrowingLayer, "can_move_columns", lambda *given: False)
    copied, expected = generated()
    assert close(logits, copied)
    assert report.kv_bytes_per_step == expected.kv_bytes_per_step
