"""Early exits of SGL: the answer that is returned, and the report."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import guides, tiny
from tests.closeness import close
from tests.engine.guide.test_guide import NEW_TOKENS, an_end
from tests.methods.test_sgl import SAMPLES, answers, plain, sgl
from vistrim import trim
from vistrim.engine.guide.exits import merged

pytestmark = pytest.mark.slow


def scores_of(samples, **options):
    model, inputs = tiny.shared(), tiny.batch(samples)
    with trim(model, sgl(threshold=1.0)) as run:
        plain(model, inputs, **options)
    return run.report.exit_scores


@pytest.mark.parametrize(("exits", "use_cache"), [(0, True), (1, True), (2, True), (3, True), (1, False), (3, False)])
def test_the_model_answers_only_samples_that_the_guide_does_not(exits, use_cache):
    model, samples = tiny.shared(), tiny.RAGGED
    inputs = tiny.batch(samples)
    falling = sorted(scores_of(samples), reverse=True)
    threshold = [1.0, *((a + b) / 2 for a, b in zip(falling, [*falling[1:], 0.0], strict=True))][exits]
    with trim(model, sgl(threshold=threshold)) as run:
        output = plain(model, inputs, use_cache=use_cache)
    with trim(model, sgl(threshold=1.0)) as never:
        alone = [plain(model, tiny.batch([s]), use_cache=use_cache) for s in samples]
    report, each = run.report, never.reports
    assert len(run.reports) == 1
    assert report.exited == [score > threshold for score in report.exit_scores]
    assert sum(report.exited) == exits
    assert close(report.exit_scores, [r.exit_scores[0] for r in each])
    assert torch.equal(output[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    for b, sample in enumerate(samples):
        if report.exited[b]:
            expected = guides.greedy(guides.shared(), sample, NEW_TOKENS)
        else:
            expected = answers(alone[b], tiny.batch([sample]))[0]
        assert answers(output, inputs)[b] == expected
    check_report(report, each, samples, use_cache)


def check_report(report, each, samples, use_cache):
    """Against the reports on its samples alone, all answered by the model."""
    stays = [not gone for gone in report.exited]
    assert report.visual_tokens == [s.visual for s in samples]
    assert report.prompt_tokens == [len(s.ids) for s in samples]
    assert report.method_flops == [r.method_flops[0] for r in each]
    assert report.prefill_flops_per_sample == [r.prefill_flops * stay for r, stay in zip(each, stays, strict=True)]
    for layer in range(tiny.DEPTH):
        expected = [r.visual_tokens_per_layer[layer][0] * stay for r, stay in zip(each, stays, strict=True)]
        assert report.visual_tokens_per_layer[layer] == expected
        if use_cache:
            expected = [r.kv_tokens_per_layer[layer][0] * stay for r, stay in zip(each, stays, strict=True)]
            assert report.kv_tokens_per_layer[layer] == expected
    for stage in report.stages:
        assert stage.kept == [r.stages[0].kept[0] if stay else [] for r, stay in zip(each, stays, strict=True)]
    assert bool(report.stages) == any(stays)
    assert report.generated_tokens == NEW_TOKENS
    assert report.guide_seconds > 0
    width = max(len(s.ids) for s in samples)
    assert report.prefill_flops_full == each[1].prefill_flops_full * 3
    if use_cache:
        per_token = each[0].kv_bytes_full // (len(samples[0].ids) + NEW_TOKENS - 1)
        assert report.kv_bytes_full == 3 * per_token * (width + NEW_TOKENS - 1)
        assert bool(report.kv_bytes) == any(stays)
        assert report.kv_fraction_mean < 1
    else:
        assert report.kv_fraction_mean is None
    assert report.to_dict()["exited"] == report.exited
    assert any("early exits" in label for label, _ in report.rows())


def test_fractions_of_the_cache_count_exits_as_nothing():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    first, *_, last = sorted(scores_of(tiny.RAGGED))
    held = []
    for threshold in (0.0, (first + last) / 2, 1.0):
        with trim(model, sgl(threshold=threshold)) as run:
            plain(model, inputs)
        held.append((run.report.kv_bytes, run.report.kv_bytes_peak, run.report.kv_fraction_mean))
    assert held[0] == (0, 0, 0.0)
    assert held[0] < held[1] < held[2]


def test_no_exit_score_is_computed_without_a_threshold():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, sgl()) as run:
        plain(model, inputs)
    assert run.report.exit_scores == []
    assert run.report.exited == [False] * 3
    assert not any("early exits" in label for label, _ in run.report.rows())


def test_answers_that_end_early_are_padded_as_the_model_pads():
    guide, model, samples = guides.shared(), tiny.build(), tiny.RAGGED
    inputs, end = tiny.batch(samples), an_end(guide, samples)
    model.generation_config.pad_token_id = 149
    with trim(model, sgl(threshold=0.0)) as run:
        output = plain(model, inputs, eos_token_id=end)
    expected = [guides.greedy(guide, sample, NEW_TOKENS, (end,)) for sample in samples]
    longest = max(map(len, expected))
    assert len(set(map(len, expected))) > 1
    assert answers(output, inputs) == [answer + [149] * (longest - len(answer)) for answer in expected]
    assert run.report.generated_tokens == longest


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=5), st.integers(1, 4))
def test_sequences_of_both_are_put_together_in_order(samples, longest):
    """The n-th sample's prompt is n, the guide's answers are of tens, the model's of hundreds."""
    exited, lengths = zip(*[(True, 1), *samples], strict=True)
    ids = torch.arange(len(exited))[:, None].expand(-1, 2)
    guided = 10 + ids[:, :1].expand(-1, 4)
    stay = [i for i, gone in enumerate(exited) if not gone]
    others = torch.tensor([[i, i] + [100 + i] * longest for i in stay]) if stay else None
    found = merged(ids, guided, lengths, exited, others, 9).tolist()
    expected = [[i, i] + ([10 + i] * lengths[i] if exited[i] else [100 + i] * longest) for i in range(len(exited))]
    width = max(map(len, expected))
    assert found == [row + [9] * (width - len(row)) for row in expected]


def test_text_is_left_when_the_images_exit():
    """The model gets no images where only samples without any are left."""
    samples = SAMPLES["text-only"]
    scores = scores_of(samples)
    if scores[0] < scores[1]:
        samples, scores = samples[::-1], scores[::-1]
    model, inputs = tiny.shared(), tiny.batch(samples)
    with trim(model, sgl(threshold=sum(scores) / 2)) as run:
        output = plain(model, inputs)
    assert run.report.exited == [True, False]
    with trim(model, sgl(threshold=1.0)):
        expected = plain(model, tiny.batch(samples[1:]))
    assert answers(output, inputs)[1] == answers(expected, tiny.batch(samples[1:]))[0]


class Streamer:
    def __init__(self):
        self.tokens, self.ended = [], 0

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended += 1


@pytest.mark.parametrize("threshold", [0.0, 1.0, None])
def test_either_answer_streams(threshold):
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED[:1])
    streamer = Streamer()
    with trim(model, sgl(threshold=threshold)):
        output = plain(model, inputs, streamer=streamer)
    assert streamer.tokens == output[0].tolist()
    assert streamer.ended == 1
