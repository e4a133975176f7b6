"""Clustering: against the formula, pair by pair."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from vistrim.core.merging import dpc_knn


def by_the_formula(x, clusters):
    n, width = len(x), len(x[0])
    d = [[math.dist(a, b) / math.sqrt(width) for b in x] for a in x]
    density = [math.exp(-sum(v * v for v in sorted(row)[:clusters]) / clusters) for row in d]
    largest = max(map(max, d))
    peak = []
    for i in range(n):
        to_denser = [d[i][j] for j in range(n) if density[j] > density[i]]
        peak.append(density[i] * min(to_denser, default=largest))
    centers = sorted(range(n), key=lambda i: (-peak[i], i))[:clusters]
    return [i if i in centers else min(centers, key=lambda c: d[i][c]) for i in range(n)]


@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 6), st.integers(0, 999))
def test_equals_the_formula(n, clusters, width, seed):
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).double()
    clusters = min(n, clusters)
    assert dpc_knn(x, clusters).tolist() == by_the_formula(x.float().tolist(), clusters)


def test_distant_groups_are_separated():
    x = torch.cat([torch.randn(5, 8) * 0.01 + center for center in (0.0, 10.0, -10.0)])
    found = dpc_knn(x, 3)
    assert [len(set(found[i : i + 5].tolist())) for i in (0, 5, 10)] == [1, 1, 1]
    assert len(set(found.tolist())) == 3


@given(st.integers(1, 9), st.integers(1, 9))
def test_equal_vectors_are_their_own_centers_at_most(n, clusters):
    found = dpc_knn(torch.ones(n, 4), min(n, clusters))
    assert set(found.tolist()) <= set(range(min(n, clusters)))
    assert len(set(found.tolist())) == min(n, clusters)
