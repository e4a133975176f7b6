"""SGL equals an independent computation: a guide that is asked sample by sample, and removed tokens that are gone."""

import itertools
from functools import cache

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.methods.dense_reference import Dense
from tests.methods.prompts import BATCHES, kernels_and_prompts
from tests.methods.sgl_rules import ask, sgl
from tests.methods.test_against_dense import assert_equal, assert_stages
from vistrim import SGL, trim

pytestmark = pytest.mark.slow

NEW_TOKENS = 4

SMALL = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
CASES = {
    # Layer and tokens of 16: 2 and 6, 1 and 3 (3.2), 2 (2.5) and 8, 4 (4.95) and 14 (14.4).
    "defaults": {},
    "early": {"layer_fraction": 0.2, "keep": 0.2},
    "middle": {"layer_fraction": 0.5, "keep": 0.5},
    "late": {"layer_fraction": 0.99, "keep": 0.9},
    "before-the-decoder": {"layer_fraction": 0.0, "keep": 0.35},
    # None of 16 tokens, one of 32.
    "nearly-nothing": {"layer_fraction": 0.4, "keep": 0.05},
    "everything": {"layer_fraction": 0.4, "keep": 1.0},
}


@cache
def small(attention="sdpa", text="llama"):
    """A guide with fewer layers and narrower ones."""
    return tiny.build(text, attention, seed=3, **SMALL)


@cache
def settled(attention="sdpa"):
    """A small guide that is sure of its answers, and mostly reads the text."""
    guide = tiny.build(attention=attention, seed=6, **SMALL)
    with torch.no_grad():
        guide.lm_head.weight.mul_(6)
        for layer in guide.get_decoder().layers:
            layer.self_attn.o_proj.weight.mul_(0.15)
    return guide


@cache
def guidances(guide, prompts):
    return [ask(guide, sample, NEW_TOKENS) for sample in BATCHES[prompts]]


def rule(guidance, layer_fraction=0.4, keep=0.4):
    return sgl(guidance, tiny.DEPTH, layer_fraction, keep)


def run(model, guide, eager_guide, prompts, **options):
    samples = BATCHES[prompts]
    inputs = tiny.batch(samples)
    with trim(model, SGL(guide, **options)) as trimmed:
        output = tiny.generate(model, inputs, NEW_TOKENS)
    alone = [Dense(tiny.shared("llama", "eager"), rule(g, **options)) for g in guidances(eager_guide, prompts)]
    assert_equal(output, inputs, trimmed.report, samples, alone)
    return trimmed.report


@covering(1)
@pytest.mark.parametrize(
    ("attention", "prompts"),
    kernels_and_prompts(BATCHES, eager=("ragged",)),
)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name, prompts, attention):
    run(tiny.shared("llama", attention), small(attention), small("eager"), prompts, **CASES[name])


@covering(1)
@pytest.mark.parametrize("name", ["defaults", "before-the-decoder"])
@pytest.mark.parametrize("prompts", ["ragged", "text-only"])
def test_other_guides(prompts, name):
    run(tiny.shared(), small(text="qwen2"), small("eager", "qwen2"), prompts, **CASES[name])
    run(tiny.shared(), tiny.shared("mistral"), tiny.shared("mistral", "eager"), prompts, **CASES[name])


@pytest.mark.parametrize("name", ["defaults", "before-the-decoder"])
def test_answers_that_end_at_different_steps(name):
    """Tokens that the guide model reads for a finished sample, while others continue, do not count."""
    samples = tiny.RAGGED
    guide, model = tiny.build(seed=3, **SMALL), tiny.build()
    # The first sample's answer ends with its second token.
    end = guidances(small("eager"), "ragged")[0].answer[1]
    guide.generation_config.eos_token_id = model.generation_config.eos_token_id = end
    inputs = tiny.batch(samples)
    with trim(model, SGL(guide, **CASES[name])) as trimmed:
        output = tiny.generate(model, inputs, NEW_TOKENS)
    told = [ask(small("eager"), sample, NEW_TOKENS, [end]) for sample in samples]
    assert [len(g.answer) for g in told] == [2, NEW_TOKENS, NEW_TOKENS]
    alone = [Dense(tiny.shared("llama", "eager"), rule(g, **CASES[name])) for g in told]
    assert_equal(output, inputs, trimmed.report, samples, alone)


def assert_exits(model, method, prompts, told, pad=tiny.PAD):
    """Samples whose score is above the threshold get the guide's answer, the others that of the trimmed model."""
    samples = BATCHES[prompts]
    inputs = tiny.batch(samples)
    with torch.no_grad(), trim(model, method) as trimmed:
        sequences = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    report, width = trimmed.report, inputs["input_ids"].shape[1]
    assert close(report.exit_scores, [g.score for g in told])
    assert report.exited == [g.score > method.exit_threshold for g in told]
    for b, (sample, guidance, answer) in enumerate(zip(samples, told, sequences[:, width:].tolist(), strict=True)):
        if report.exited[b]:
            assert answer == guidance.answer + [pad] * (len(answer) - len(guidance.answer))
            continue
        oracle = Dense(tiny.shared("llama", "eager"), rule(guidance))
        expected = oracle.follow(sample.ids, sample.pixels, answer)
        assert_stages(report, b, oracle)
        # Where nothing of the answers shows the logits, they have to choose its tokens.
        ended = len(answer) if pad not in answer else answer.index(pad)
        assert expected.argmax(-1)[:ended].tolist() == answer[:ended]


def thresholds(told):
    """One below all scores, one between each two, and one above all."""
    scores = sorted(g.score for g in told)
    neighbors = list(itertools.pairwise(scores))
    assert all(b - a > 1e-3 for a, b in neighbors)
    return [scores[0] / 2, *((a + b) / 2 for a, b in neighbors), (scores[-1] + 1) / 2]


@covering(1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("stay", range(4))
def test_early_exit(stay, attention):
    told = guidances(settled("eager"), "ragged")
    method = SGL(settled(attention), exit_threshold=thresholds(told)[stay])
    assert_exits(tiny.shared("llama", attention), method, "ragged", told)


@pytest.mark.parametrize("prompts", ["one", "ends-with-image"])
@pytest.mark.parametrize("last", [False, True])
def test_early_exit_of_other_prompts(last, prompts):
    told = guidances(settled("eager"), prompts)
    method = SGL(settled(), exit_threshold=thresholds(told)[-1 if last else 0])
    assert_exits(tiny.shared(), method, prompts, told)


@pytest.mark.parametrize("stay", range(3))
def test_early_exit_beside_a_prompt_without_images(stay):
    """Without an image there is nothing to prune, and consistency is the probability of the answer."""
    told = guidances(settled("eager"), "text-only")
    method = SGL(settled(), exit_threshold=thresholds(told)[stay])
    assert_exits(tiny.shared(), method, "text-only", told)


def test_early_exit_with_answers_that_end():
    """The token that ends an answer counts for both scores."""
    guide, model = tiny.build(seed=6, **SMALL), tiny.build()
    guide.load_state_dict(settled().state_dict())
    end = guidances(settled("eager"), "ragged")[0].answer[1]
    guide.generation_config.eos_token_id = model.generation_config.eos_token_id = end
    told = [ask(settled("eager"), sample, NEW_TOKENS, [end]) for sample in tiny.RAGGED]
    assert len(told[0].answer) == 2
    assert_exits(model, SGL(guide, exit_threshold=thresholds(told)[0]), "ragged", told)
