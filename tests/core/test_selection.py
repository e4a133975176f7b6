"""Selection: against plain Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vistrim.core import selection
from vistrim.core.selection import gather_rows, keep_top, kept_rows


@st.composite
def scored(draw):
    """Scores with ties, candidates and a count per sample."""
    batch, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    number = st.sampled_from([0.0, 0.25, 0.5, -1.0, float("nan"), float("-inf")])
    scores = draw(st.lists(st.lists(number, min_size=tokens, max_size=tokens), min_size=batch, max_size=batch))
    candidates = draw(
        st.lists(st.lists(st.booleans(), min_size=tokens, max_size=tokens), min_size=batch, max_size=batch)
    )
    counts = [draw(st.integers(0, sum(row))) for row in candidates]
    return scores, candidates, counts


@given(scored())
def test_keep_top_equals_sorting(data):
    scores, candidates, counts = data
    selection = keep_top(torch.tensor(scores), torch.tensor(candidates), counts)
    assert selection.counts == tuple(counts)
    for b, count in enumerate(counts):
        key = {i: s if math.isfinite(s) else -math.inf for i, s in enumerate(scores[b])}
        rows = [i for i, c in enumerate(candidates[b]) if c]
        best = sorted(rows, key=lambda i: (-key[i], i))[:count]
        assert set(selection.keep[b].nonzero()[:, 0].tolist()) == set(best)


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4))
def test_kept_rows_are_in_order_and_aligned_to_the_right(keep):
    counts = [sum(row) for row in keep]
    if max(counts) == 0:
        return
    index, valid = kept_rows(torch.tensor(keep), counts)
    assert index.shape == valid.shape == (len(keep), max(counts))
    for b, row in enumerate(keep):
        assert index[b][valid[b]].tolist() == [i for i, k in enumerate(row) if k]
        assert valid[b].tolist() == sorted(valid[b].tolist())
        assert not any(row[i] for i in index[b][~valid[b]].tolist())


@pytest.mark.parametrize(
    ("shape", "batch_dim", "seq_dim"),
    [
        ((3, 7), 0, 1),
        ((3, 7, 5), 0, 1),
        ((1, 7, 5), -3, -2),
        ((3, 2, 7, 5), 0, 2),
        ((4, 3, 7), 1, 2),
        ((3, 1, 6, 7), 0, 3),
    ],
)
@pytest.mark.parametrize("few", [0, 1000])
def test_gather_rows_equals_a_loop(shape, batch_dim, seq_dim, few, monkeypatch):
    monkeypatch.setattr(selection, "FEW", few)
    x = torch.randn(shape)
    index = torch.randint(0, 7, (3, 4))
    got = gather_rows(x, index, batch_dim, seq_dim)
    batch_dim, seq_dim = batch_dim % x.dim(), seq_dim % x.dim()
    assert got.shape == tuple(3 if d == batch_dim else 4 if d == seq_dim else n for d, n in enumerate(shape))
    for b in range(3):
        source = x.select(batch_dim, b if shape[batch_dim] == 3 else 0)
        expected = source.index_select(seq_dim - 1, index[b])
        assert torch.equal(got.select(batch_dim, b), expected)


def test_gather_rows_gives_storage_of_its_own():
    x = torch.randn(1, 2, 100, 4)
    assert gather_rows(x, torch.tensor([[1, 5]]), 0, 2).untyped_storage().nbytes() == 2 * 2 * 4 * 4
