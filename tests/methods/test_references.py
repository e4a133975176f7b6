"""The references of SGL, DyVTE, G-Search and P-Sigmoid equal slower computations.

Those come from transformers itself: its generation, its attention maps and hidden states, and its eager model at full
length under masks.
"""

import itertools
import math

import pytest
import torch
from torch import nn

from tests import tiny
from tests.closeness import close
from tests.engine.test_against_oracle import follow
from tests.methods import masked_reference
from tests.methods.dense_reference import Dense
from tests.methods.dyvte_rules import DyVTE
from tests.methods.keep_rate_rules import KeepRates, midpoint, sigmoid_rates
from tests.methods.masked_reference import Reading
from tests.methods.prompts import ENDS_WITH_IMAGE, ONE_WORD, TEXT_BETWEEN, TEXT_ONLY
from tests.methods.sgl_rules import ask, sgl
from tests.oracle import Oracle

# As the tests that compare methods with these references.
pytestmark = pytest.mark.slow

PROMPTS = {
    "one": tiny.RAGGED[0],
    "two-images": tiny.RAGGED[1],
    "text-only": TEXT_ONLY,
    "ends-with-image": ENDS_WITH_IMAGE,
    "one-word": ONE_WORD,
    "text-between": TEXT_BETWEEN,
}
EACH = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
ANSWER = [17, 99, 5, 140]


def model():
    return tiny.shared("llama", "eager")


@pytest.fixture(scope="module")
def guide():
    return tiny.build(attention="eager", seed=3, num_hidden_layers=3)


def assert_as_read(dense, reading, prompt, seen):
    expected = masked_reference.logits(dense.model, reading, seen)
    assert close(dense.follow(prompt.ids, prompt.pixels, ANSWER), expected)


@EACH
@pytest.mark.parametrize("ends", ["never", "second"])
def test_guidance(prompt, ends, guide):
    ids = torch.tensor([prompt.ids])
    free = tiny.generate(guide, tiny.batch([prompt]), 5).sequences[0, ids.shape[1] :].tolist()
    stop = [free[1]] if ends == "second" else []
    output = tiny.generate(guide, tiny.batch([prompt]), 5, output_attentions=True, eos_token_id=stop or None)
    answer = output.sequences[0, ids.shape[1] :].tolist()
    guidance = ask(guide, prompt, 5, stop)
    assert guidance.answer == answer
    assert len(answer) == (free.index(free[1]) + 1 if stop else 5)

    reading = Reading.of(guide, prompt, answer)
    behind = slice(max(reading.visual, default=-1) + 1, None)
    importance = sum(layer[0, :, behind].sum((0, 1)) for layer in output.attentions[0])[reading.visual]
    for step in output.attentions[1:]:
        importance = importance + sum(layer[0, :, 0].sum(0)[reading.visual] for layer in step)
    assert close(guidance.importance, importance)

    chances = torch.stack([step[0].softmax(-1)[token] for step, token in zip(output.logits, answer, strict=True)])
    assert guidance.confidence == pytest.approx(float(chances.log().mean().exp()), rel=1e-4)
    best = importance.argsort(descending=True)[: max(1, len(importance) // 20)].tolist()
    hidden = [i for number, i in enumerate(reading.visual) if number not in best]
    few = masked_reference.logits(guide, reading, lambda layer: reading.without(hidden)).log_softmax(-1)
    log_probability = sum(float(few[step, token]) for step, token in enumerate(answer))
    assert guidance.consistency == pytest.approx(math.exp(log_probability), rel=1e-3)


@EACH
@pytest.mark.parametrize(("fraction", "layer"), [(0.0, 0), (0.5, 2), (0.99, 4)])
def test_guided_cut(prompt, fraction, layer):
    guidance = ask(tiny.shared("qwen2", "eager"), prompt, 4)
    reading = Reading.of(model(), prompt, ANSWER)
    importance = guidance.importance.tolist()
    # A token stays if fewer than the number to be kept are better.
    worse = [sum(other > own for other in importance) >= int(0.3 * len(importance)) for own in importance]
    hidden = list(itertools.compress(reading.visual, worse))
    dense = Dense(model(), sgl(guidance, tiny.DEPTH, fraction, 0.3))
    assert_as_read(dense, reading, prompt, lambda at: reading.without(hidden if at >= layer else []))
    assert len(hidden) == {0: 0, 15: 11, 16: 12, 32: 23}[len(importance)]


@EACH
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_exits(prompt, seed):
    generator = torch.Generator().manual_seed(seed)
    routers = {}
    for layer in range(tiny.DEPTH):
        routers[f"layers.{layer}.w1"] = torch.randn(8, 64, generator=generator)
        routers[f"layers.{layer}.w2"] = torch.randn(2, 8, generator=generator)
    reading = Reading.of(model(), prompt, ANSWER)
    # Nothing is removed up to the exit, so that the untouched model knows what every router sees.
    states = model()(**tiny.batch([prompt]), output_hidden_states=True).hidden_states
    exit_after, margins = tiny.DEPTH, []
    behind = max(reading.visual, default=-1) + 1
    for layer in range(tiny.DEPTH - 1 if reading.visual else 0):
        text = states[layer + 1][0, behind:]
        mean = text[:-1].mean(0) if len(text) > 1 else text[-1]
        router = nn.Sequential(nn.Linear(64, 8, bias=False), nn.GELU(), nn.Linear(8, 2, bias=False))
        router[0].weight.data, router[2].weight.data = routers[f"layers.{layer}.w1"], routers[f"layers.{layer}.w2"]
        decision = router(torch.cat([mean, text[-1]]))
        margins.append(float((decision[1] - decision[0]).abs()))
        if decision.softmax(-1)[1] > 0.5:
            exit_after = layer
            break
    dense = Dense(model(), DyVTE(routers))
    assert_as_read(dense, reading, prompt, lambda at: reading.without(reading.visual if at > exit_after else []))
    assert dense.rule.margins == pytest.approx(margins, rel=1e-3)
    text = len(reading.embeddings) - len(reading.visual)
    assert dense.kv_lengths == [text + (len(reading.visual) if at <= exit_after else 0) for at in range(tiny.DEPTH)]


@EACH
@pytest.mark.parametrize("rates", [(1.0, 0.8, 0.8, 0.3, 0.1), (1.0, 1.0, 0.5, 0.5, 0.0), (1.0, 0.02, 0.02, 0.01, 0.0)])
def test_rates(prompt, rates):
    oracle = Oracle(model(), lambda n, layer, step: n if step else -int(-n * rates[layer] // 1))
    if prompt is ENDS_WITH_IMAGE:
        expected = [oracle.prefill(prompt.ids, prompt.pixels, protected=[len(prompt.ids) - 1])]
        expected = torch.stack(expected + [oracle.decode(token) for token in ANSWER[:-1]])
    else:
        expected = follow(oracle, prompt, ANSWER)
    dense = Dense(model(), KeepRates(rates))
    assert close(dense.follow(prompt.ids, prompt.pixels, ANSWER), expected)
    assert dense.kv_lengths == oracle.kv_lengths()


@pytest.mark.parametrize("kappa", [0.05, 0.4, 3.0])
@pytest.mark.parametrize("budget", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("depth", [5, 12, 32])
def test_sigmoid_rates(depth, budget, kappa):
    alpha = midpoint(depth, budget, kappa)
    points = (torch.arange(200 * depth).double() + 0.5) / 200
    assert float((kappa * (alpha - points)).sigmoid().mean()) == pytest.approx(budget, abs=1e-4)
    rates = sigmoid_rates(depth, budget, kappa)
    assert rates[0] == 1.0
    assert sum(rates) / depth == pytest.approx(budget)
    assert all(1 >= a >= b > 0 for a, b in itertools.pairwise(rates))
    # All that are not at their limit are the curve times one factor.
    curve = (kappa * (alpha - torch.arange(depth).double() - 0.5)).sigmoid().tolist()
    factors = [rate / c for rate, c in zip(rates[1:], curve[1:], strict=True) if rate < 1]
    assert factors == pytest.approx([factors[0]] * len(factors), rel=1e-6)
    assert all(factors[0] * c >= 1 for rate, c in zip(rates[1:], curve[1:], strict=True) if rate == 1)
