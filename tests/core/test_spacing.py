"""Evenly spaced subsets that stay evenly spaced as they shrink."""

import torch

from vistrim.core.spacing import keep_top_and_spaced, spacing


def test_every_beginning_of_the_order_is_evenly_spaced():
    n = 576
    order = spacing(torch.arange(n)).argsort()
    assert len(set(spacing(torch.arange(n)).tolist())) == n
    for k in range(2, n):
        gaps = order[:k].sort().values.diff()
        assert len(set(gaps.tolist())) <= 3
        assert gaps.max() <= 3 * n / k


def test_a_part_is_spaced_and_the_rest_ranked():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(12).repeat(2, 1)
    candidates = torch.rand(2, 12, generator=generator) < 0.8
    held = candidates
    for share in (0.7, 0.5, 0.3, 0.1):
        scores = torch.rand(2, 12, generator=generator)
        counts = [int(share * n) for n in candidates.sum(1).tolist()]
        kept = keep_top_and_spaced(scores, held, counts, numbers, 0.5).keep
        assert kept.sum(1).tolist() == counts
        assert not (kept & ~held).any()
        for b, count in enumerate(counts):
            # Whatever was ranked before, the same tokens are spaced.
            first = spacing(numbers[b]).masked_fill(~candidates[b], 1 << 24).argsort()[: count // 2]
            assert kept[b, first].all()
            others = held[b] & ~torch.zeros(12).bool().index_fill(0, first, True)
            best = scores[b].masked_fill(~others, -1).argsort(descending=True)[: count - count // 2]
            assert kept[b, best].all()
        held = kept
