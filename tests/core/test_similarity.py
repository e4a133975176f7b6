"""Cosines of all pairs of tokens."""

import torch
from torch.nn.functional import normalize

from tests.closeness import close
from vistrim.core.similarity import cosines


def test_the_matrix_is_symmetric_and_equal_rows_tie_exactly():
    draw = torch.Generator().manual_seed(0)
    for n, width in ((2, 64), (5, 63), (9, 128), (17, 1000), (31, 48), (33, 64), (145, 40), (577, 96), (1153, 64)):
        features = torch.randn(n, width, generator=draw)
        # From everywhere to everywhere, the last rows included.
        old, new = torch.randperm(n, generator=draw).split([n // 2, n - n // 2])
        features[new[: n // 2]] = features[old]
        alike = cosines(features)
        assert torch.equal(alike, alike.T), (n, width)
        assert torch.equal(alike[:, old], alike[:, new[: n // 2]]), (n, width)
        unit = normalize(features.double(), dim=-1)
        assert close(alike, unit @ unit.T), (n, width)


def test_a_row_of_zeros_is_like_nothing():
    assert cosines(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], [0.0, 1.0]]
