"""Router inputs, votes and labels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.closeness import close
from vistrim.core.routing import compare_answers, exits_by_code, exits_by_paper, question_summary, router_logits


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 1000))
def test_a_summary_is_the_mean_of_all_but_the_last_and_the_last(words, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, words + padding, 4, generator=generator)
    question = torch.arange(words + padding) < words
    first, last = question_summary(hidden, question.expand(2, -1)).split(4, 1)
    assert torch.equal(last, hidden[:, words - 1])
    others = hidden[:, : words - 1] if words > 1 else hidden[:, :1]
    assert close(first, others.mean(1))


def test_half_precision_is_summed_up_in_float32():
    hidden = torch.randn(1, 5, 8).bfloat16()
    summary = question_summary(hidden, torch.ones(1, 5, dtype=torch.bool))
    assert summary.dtype == torch.float32
    assert close(summary[:, :8], hidden[:, :4].float().mean(1), 1e-2)


def test_routers_of_all_layers_at_once_are_those_of_each():
    summary, w1, w2 = torch.randn(3, 5, 8), torch.randn(3, 6, 8), torch.randn(3, 2, 6)
    together = router_logits(summary, w1, w2)
    for layer in range(3):
        network = torch.nn.Sequential(torch.nn.Linear(8, 6, False), torch.nn.GELU(), torch.nn.Linear(6, 2, False))
        network[0].weight.data, network[2].weight.data = w1[layer], w2[layer]
        assert close(together[layer], network(summary[layer]))


def test_labels():
    """Four answers: the same; surer without the image; less sure; another answer."""
    answer = torch.tensor([[1, 2, -100]]).expand(4, -1)
    full = torch.zeros(4, 3, 4)
    full[:, 0, 1] = full[:, 1, 2] = 5.0
    without = full.clone()
    without[1, 1, 2] = 9.0
    without[2, 1, 2] = 4.0
    without[3, 1, 3] = 8.0
    full[:, 2, 0] = 50.0  # Not counted.
    found = compare_answers(full, without, answer)
    entropy = torch.nn.functional.cross_entropy
    expected = [entropy(without[b, :2], answer[b, :2]).item() for b in range(4)]
    assert found.entropy_without.tolist() == pytest.approx(expected)
    assert found.entropy_full[0].item() == pytest.approx(expected[0])
    assert found.alike.tolist() == [1, 1, 1, 0.5]
    assert exits_by_code(found).tolist() == [True, True, False, False]
    assert exits_by_paper(found, 0.1).tolist() == [True, True, True, False]
    assert exits_by_paper(found, 0.02).tolist() == [False, True, False, False]
