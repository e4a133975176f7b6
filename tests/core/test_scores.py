"""Scores: against materialized attention."""

import pytest
import torch

from tests.closeness import close
from vistrim.core.scores import ROWS_AT_ONCE, AttentionRows, Softmax, attention_weights


def received(query, key, visible, softmax):
    """Of all rows and keys."""
    places = torch.arange(query.shape[2]).expand(len(query), -1)
    return AttentionRows(query, key, visible, softmax, key.shape[2], places).received()


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (8, 1)])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_mean_of_materialized_weights(heads, kv_heads, rows, masked):
    generator = torch.Generator().manual_seed(heads + rows)
    query = torch.randn(2, heads, rows, 5, generator=generator)
    key = torch.randn(2, kv_heads, 11, 5, generator=generator)
    visible = torch.rand(2, rows, 11, generator=generator) > 0.3 if masked else None
    logits = query @ key.repeat_interleave(heads // kv_heads, 1).transpose(2, 3) * 0.4
    if masked:
        logits = logits.masked_fill(~visible[:, None], -torch.inf)
    expected = logits.softmax(-1).mean((1, 2))
    got = received(query, key, visible, Softmax(0.4))
    assert close(got, expected)
    assert close(got.sum(1), torch.ones(2))


def test_large_half_precision_values_do_not_overflow():
    query, key = torch.full((1, 1, 1, 64), 90.0).half(), torch.full((1, 1, 3, 64), 90.0).half()
    assert close(received(query, key, None, Softmax(0.05)), torch.full((1, 3), 1 / 3))


def test_softmax_is_taken_in_float32():
    query, key = torch.randn(1, 2, 1, 8).bfloat16(), torch.randn(1, 2, 300, 8).bfloat16()
    got = received(query, key, None, Softmax(0.3))
    assert got.dtype == torch.float32
    assert close(got.sum(), 1.0)


@pytest.mark.parametrize("rows", [1, 5, ROWS_AT_ONCE + 3])
def test_rows_computed_in_blocks_equal_all_at_once(rows):
    generator = torch.Generator().manual_seed(rows)
    query, key = torch.randn(2, 4, rows, 5, generator=generator), torch.randn(2, 2, 11, 5, generator=generator)
    visible = torch.rand(2, rows, 11, generator=generator) > 0.3
    counted = torch.rand(2, rows, generator=generator) > 0.4
    counted[:, 0], visible[:, :, 0] = True, True
    places = torch.arange(rows).expand(2, -1)
    attention = AttentionRows(query, key, visible, Softmax(0.4), 7, places, counted)
    weights = attention_weights(query, key, visible, Softmax(0.4))[..., -7:]
    for b in range(2):
        assert close(attention.received()[b], weights[b][:, counted[b]].mean((0, 1)))
        assert close(attention.head_mean()[b][counted[b]], weights[b][:, counted[b]].mean(0))
        assert attention.head_mean()[b][~counted[b]].abs().sum() == 0
    everything = AttentionRows(query, key, visible, Softmax(0.4), 11, places)
    assert sum(found.shape[2] for found, _ in everything.blocks()) == rows


def test_soft_cap_and_sink():
    query, key = torch.randn(1, 2, 1, 4), torch.randn(1, 1, 5, 4)
    logits = 0.5 * query @ key.transpose(2, 3)
    capped = 3 * torch.tanh(logits / 3)
    sinks = torch.tensor([0.3, -1.0])
    expected = torch.cat([capped, sinks.view(1, 2, 1, 1)], -1).softmax(-1)[..., :5]
    assert close(attention_weights(query, key, None, Softmax(0.5, 3.0, sinks)), expected)
