"""Schedules: plain numbers, checked against the formulas and their promises."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistrim.core.schedules import (
    DECAYS,
    budget,
    check_keep,
    cuts_before,
    decay_factor,
    scaled_to_depth,
    share_kept,
    tokens_kept,
)

shares = st.floats(0, 1)
counts = st.integers(0, 5000)


@given(st.integers(0, 100), st.integers(1, 40), st.integers(1, 16))
def test_cuts(layer, start, stride):
    assert cuts_before(layer, start, stride) == len(range(start, layer + 1, stride))


@given(st.sampled_from(DECAYS), st.integers(1, 500), st.integers(0, 600))
def test_decay_starts_at_one_and_never_rises(decay, horizon, step):
    assert decay_factor(decay, 0, horizon) == 1.0
    assert 0.0 <= decay_factor(decay, step + 1, horizon) <= decay_factor(decay, step, horizon) <= 1.0


def test_decay_values():
    assert decay_factor("linear", 16, 64) == 0.75
    assert decay_factor("linear", 64, 64) == decay_factor("cosine", 64, 64) == decay_factor("cosine", 99, 64) == 0.0
    assert decay_factor("cosine", 32, 64) == pytest.approx(0.5)
    assert decay_factor("exponential", 64, 64) == pytest.approx(math.exp(-3))
    with pytest.raises(ValueError, match="cosine"):
        decay_factor("cubic", 1, 2)


@given(counts, shares, shares, shares)
def test_tokens_kept_stays_in_range(n, retention, factor, floor):
    kept = tokens_kept(n, retention, factor, floor)
    assert 0 <= kept <= n
    assert kept >= floor * n * retention - 1e-6
    assert kept >= math.floor(n * retention * factor + 0.5)
    assert tokens_kept(n, 1.0) == n


def test_tokens_kept_rounds_half_up():
    assert [tokens_kept(n, 0.5) for n in (1, 3, 5)] == [1, 2, 3]
    assert tokens_kept(100, 0.5, 0.0, 0.01) == 1
    assert tokens_kept(100, 1.0, 0.0, 0.07) == 7


def test_scaling_to_depth():
    assert [scaled_to_depth(3, d) for d in (32, 40, 12, 1)] == [3, 4, 1, 1]
    assert [scaled_to_depth(4, d) for d in (32, 40, 12, 1)] == [4, 5, 2, 1]


@given(st.integers(1, 5000), st.integers(1, 6000), st.floats(0, 1, exclude_min=True))
def test_budget(n, number, share):
    assert budget(number, n) == min(number, n)
    assert 1 <= budget(share, n) <= n
    assert budget(1.0, n) == n


@pytest.mark.parametrize("keep", [0, -1, 0.0, 1.5, -0.2, 1])
def test_budget_out_of_range(keep):
    with pytest.raises(ValueError, match="keep="):
        check_keep("keep", keep)


@given(counts, shares)
def test_share_kept_rounds_up(n, rate):
    kept = share_kept(rate, n)
    assert 0 <= kept <= n
    assert kept >= rate * n - 1e-6
    assert (kept == 0) == (rate == 0 or n == 0)


def test_share_kept_values():
    assert [share_kept(rate, 100) for rate in (1, 0.07, 0.0701, 1e-30, 0)] == [100, 7, 8, 1, 0]
    assert share_kept(1 / 3, 144) == share_kept(1 / 3 + 1e-16, 144) == 48
