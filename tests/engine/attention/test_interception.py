"""Intercepted scores equal eager attention."""

import functools

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.engine.test_keep_everything import KeepEverything
from vistrim import VTA, trim
from vistrim.core.selection import Selection
from vistrim.engine.releases import CACHE


class Spy(KeepEverything):
    """Keeps everything and remembers the scores it was shown."""

    def __init__(self):
        object.__setattr__(self, "seen", {})

    def select_prefill(self, layer, tokens):
        self.seen[layer] = tokens.scores
        return Selection(tokens.visual, tokens.held)


@pytest.mark.parametrize("text", tiny.TEXTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_prefill_scores_equal_eager_attention_weights(text, attention):
    inputs = tiny.batch(tiny.RAGGED)
    with torch.no_grad():
        weights = tiny.shared(text, "eager")(**inputs, output_attentions=True).attentions
        with trim(tiny.shared(text, attention), spy := Spy()):
            tiny.shared(text, attention)(**inputs)
    assert sorted(spy.seen) == list(range(1, tiny.DEPTH))
    for layer, scores in spy.seen.items():
        expected = weights[layer - 1][:, :, -1].float().mean(1)
        assert close(scores, expected)


class DecodeSpy(VTA):
    """Drops one visual token per step and remembers the scores it was shown."""

    @functools.cached_property
    def seen(self):
        return {}

    def tokens_kept(self, n, layer, step, depth):
        return n - step

    def select_decode(self, layer, counts, tokens):
        self.seen[layer, 16 - counts[0]] = tokens
        return super().select_decode(layer, counts, tokens)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_decode_scores_equal_eager_attention_weights(attention):
    """Layer 0 is ranked by its own weights of the step before, the others by those of the layer below in this step."""
    sample = tiny.sample(1, 9)
    inputs = tiny.batch([sample])
    model = tiny.shared("llama", attention)
    spy = DecodeSpy(interval=1)
    with trim(model, spy):
        output = tiny.generate(model, inputs, 2)
    eager = tiny.shared("llama", "eager")
    with torch.no_grad():
        prompt = eager(**inputs, output_attentions=True)
        token = output.sequences[:, len(sample.ids) : len(sample.ids) + 1]
    first = spy.seen[0, 1]
    expected = prompt.attentions[0][:, :, -1].mean(1)
    assert close(first.scores, expected)
    kept0 = first.scores.masked_fill(~first.visual, 2.0).argsort(1, descending=True)[:, :-1].sort(1).values
    # Layer 1: one visual token is gone from layer 0; that one ranks lowest, the others by their weights there.
    second = spy.seen[1, 1]
    gone = (set(range(len(sample.ids))) - set(kept0[0].tolist())).pop()
    assert second.scores[0, gone] == second.scores.min() < 0
    mask = torch.zeros(1, 1, 1, len(sample.ids) + 1)
    mask[..., gone] = torch.finfo(torch.float32).min
    with torch.no_grad():
        step = eager(
            input_ids=token,
            attention_mask=mask,
            position_ids=torch.tensor([[len(sample.ids)]]),
            **{CACHE: prompt[CACHE]},
            output_attentions=True,
        )
    weights = step.attentions[0][0, :, -1].mean(0)[:-1]
    others = [i for i in range(len(sample.ids)) if i != gone]
    assert close(second.scores[0, others], weights[others])
