"""VisPruner's removal of similar tokens, against lists, for every parity."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vistrim import FasterVLM, VisPruner
from vistrim.methods.base.per_image import ImageTokens
from vistrim.methods.vispruner import thinned_out


def with_lists(ranked, similarity, left):
    while len(ranked) > left > 0:
        a, b = [t for i, t in enumerate(ranked) if i % 2 == 0], [t for i, t in enumerate(ranked) if i % 2 == 1]
        likeness = {t: max(similarity[t][u] for u in b) for t in a}
        falling = sorted(a, key=lambda t: -likeness[t])
        ranked = falling[min(8, len(ranked) - left) :] + b
    return ranked if left else []


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 999))
def test_equals_the_same_with_lists(m, left, seed):
    generator = torch.Generator().manual_seed(seed)
    ranked, left = torch.randperm(m, generator=generator), min(m, left)
    similarity = torch.randn(m, m, generator=generator)
    similarity += similarity.T.clone()
    found = thinned_out(ranked, similarity, left)
    assert found.tolist() == with_lists(ranked.tolist(), similarity.tolist(), left)
    assert len(set(found.tolist())) == left


@given(st.integers(1, 40), st.integers(2, 40), st.floats(0, 1), st.integers(0, 99))
def test_keeps_the_number_asked_for_and_the_important_ones(n, keep, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    scores, features = torch.rand(n, generator=generator), torch.randn(n, 6, generator=generator)
    image = ImageTokens(0, n, (1, n), {3: scores}, features)
    chosen = VisPruner(keep, ratio).choose(image).keep.tolist()
    assert len(set(chosen)) == len(chosen) == min(n, keep)
    important = FasterVLM(max(1, int(min(n, keep) * ratio)) / n).choose(image).keep.tolist()
    if int(min(n, keep) * ratio):
        assert set(important) <= set(chosen)


def test_copies_of_a_patch_go_first():
    """All patches are alike but two."""
    features = torch.ones(60, 4)
    features[13], features[48] = torch.tensor([1.0, -1, 0, 0]), torch.tensor([0, 0, 1.0, -1])
    image = ImageTokens(0, 60, (6, 10), {0: torch.linspace(1, 0, 60)}, features)
    chosen = VisPruner(20, important=0.25).choose(image).keep.tolist()
    assert {13, 48, *range(5)} <= set(chosen)
