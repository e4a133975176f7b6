"""In every family, each way to generate equals the masked reference: with cuts in prefill, and with ST3."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.closeness import close
from tests.families.later_turns import next_turn
from tests.families.masked_reference import REFERENCE
from tests.families.matrix import CASES, answers, follower, has_windows, padding_that_counts, prompts
from tests.families.stock_limits import close_in_a_batch, stock_fails, to_repeat
from tests.families.test_masked_reference import follow
from tests.families.zoo import FAMILIES, Sample, shared
from tests.tiny import generate, logits
from vistrim import UnsupportedGenerationError, trim
from vistrim.engine.releases import CACHE

STEPS = 3
METHODS = {"pvtp": CASES["prefill"]["pvtp"], "st3": CASES["all"]["st3"]}
PREFILL_ONLY = METHODS["pvtp"]
CYCLE = (5, 6, 7)

each_family = pytest.mark.parametrize("name", FAMILIES)
each_method = pytest.mark.parametrize("method", ["pvtp", pytest.param("st3", marks=pytest.mark.slow)])
cell = pytest.mark.cell


def assert_equal(name: str, case: Any, samples: Sequence[Sample], inputs: dict[str, Tensor], output: Any) -> None:
    """Every row equals the reference, which reads the same answer; a sample may have several rows."""
    each = len(output.sequences) // len(samples)
    paddings = padding_that_counts(name, samples)
    for row, answer in enumerate(answers(output, inputs)):
        reference = follower(name, case, padding=paddings[row // each])
        expected = follow(reference, answer, samples[row // each])
        assert close_in_a_batch(name, logits(output)[row], expected)


@cell(mode="beam search")
@each_method
@each_family
def test_beam_search(name, method, record_property):
    if stock_fails(name, "expanding", record_property, num_beams=2):
        return
    case, samples = METHODS[method], to_repeat(name, record_property)
    inputs = FAMILIES[name].batch(samples)
    with trim(shared(name), case.method) as run:
        output = generate(shared(name), inputs, STEPS, num_beams=2, output_scores=True, length_penalty=0.0)
    paddings = padding_that_counts(name, samples)
    for row, answer in enumerate(answers(output, inputs)):
        expected = follow(follower(name, case, padding=paddings[row]), answer, samples[row])
        score = expected.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
        assert close_in_a_batch(name, output.sequences_scores[row], score)
    assert run.report.visual_tokens == [s.visual for s in samples for _ in range(2)]


@cell(mode="several answers")
@each_method
@each_family
def test_sampling_with_several_answers(name, method, record_property):
    if stock_fails(name, "expanding", record_property, do_sample=True, num_return_sequences=2):
        return
    case, samples = METHODS[method], to_repeat(name, record_property)[:2]
    inputs = FAMILIES[name].batch(samples)
    torch.manual_seed(5)
    with trim(shared(name), case.method) as run:
        output = generate(shared(name), inputs, STEPS, do_sample=True, num_return_sequences=2)
    assert len(set(answers(output, inputs))) > 2
    assert_equal(name, case, samples, inputs, output)
    assert run.report.visual_tokens == [s.visual for s in samples for _ in range(2)]


@cell(mode="no cache")
@each_family
def test_without_a_cache(name, record_property):
    if stock_fails(name, "no cache", record_property, use_cache=False):
        return
    samples = prompts(name)
    inputs = FAMILIES[name].batch(samples)
    with trim(shared(name), PREFILL_ONLY.method) as run:
        output = generate(shared(name), inputs, STEPS, use_cache=False)
    assert_equal(name, PREFILL_ONLY, samples, inputs, output)
    assert run.report.kv_bytes == 0
    with (
        trim(shared(name), METHODS["st3"].method),
        pytest.raises(UnsupportedGenerationError, match="without a KV cache"),
    ):
        generate(shared(name), inputs, STEPS, use_cache=False)


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(0, id="text", marks=cell(mode="second turn")),
        pytest.param(1, id="image", marks=cell(mode="second turn with an image")),
    ],
)
@each_method
@each_family
def test_a_second_turn(name, method, images):
    family, model, case = FAMILIES[name], shared(name), METHODS[method]
    sample, more = family.sample(1, 9, seed=1), family.sample(images, 4, seed=2)
    inputs = family.batch([sample])
    with torch.no_grad(), trim(model, case.method) as run:
        first = generate(model, inputs, STEPS)
        turn = next_turn(family, model, inputs, first, [sample], [more])
        second = generate(model, turn, STEPS)
    reference, (answer,) = follower(name, case), answers(first, inputs)
    assert close(logits(first)[0], follow(reference, answer, sample), REFERENCE)
    # The last token of an answer is read with what comes behind it.
    more = Sample([answer[-1], *more.ids], more.media)
    expected = follow(reference, answers(second, turn)[0], more)
    assert close(logits(second)[0], expected, REFERENCE)
    assert [layer.keys.shape[-2] for layer in second[CACHE].layers] == list(map(len, reference.held()))
    assert [report.visual_tokens for report in run.reports] == [[sample.visual], [more.visual]]


@cell(mode="video")
@each_method
@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.has_video])
def test_videos(name, method):
    family, case = FAMILIES[name], METHODS[method]
    samples = [family.sample(0, 9, seed=3, videos=1), family.sample(0, 5, seed=4, videos=2), family.sample(0, 7)]
    inputs = family.batch(samples)
    with trim(shared(name), case.method) as run:
        output = generate(shared(name), inputs, STEPS)
    assert_equal(name, case, samples, inputs, output)
    assert run.report.visual_tokens == [s.visual for s in samples]


@cell(mode="image and video")
@each_method
@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.has_video and family.has_both])
def test_images_and_videos_together(name, method):
    family, case = FAMILIES[name], METHODS[method]
    samples = [family.sample(1, 9, seed=3, videos=1), family.sample(2, 5, seed=4), family.sample(0, 7, videos=1)]
    inputs = family.batch(samples)
    with trim(shared(name), case.method) as run:
        output = generate(shared(name), inputs, STEPS)
    assert_equal(name, case, samples, inputs, output)
    assert run.report.visual_tokens == [s.visual for s in samples]


@cell(mode="prompt lookup")
@each_family
def test_prompt_lookup(name, record_property):
    sample = prompts(name)[0]
    inputs = FAMILIES[name].batch([sample])
    length = len(sample.ids)

    def begin_in_circles(ids: Tensor, scores: Tensor) -> Tensor:
        """At first the answer repeats itself, so that lookups are right; later they may be wrong."""
        generated = ids.shape[1] - length
        if generated >= 8:
            return scores
        wanted = torch.arange(scores.shape[-1]) == CYCLE[generated % len(CYCLE)]
        return torch.where(wanted, 0.0, -torch.inf).expand_as(scores)

    options = {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1, "logits_processor": [begin_in_circles]}
    with trim(shared(name), PREFILL_ONLY.method) as run:
        if has_windows(name):
            with pytest.raises(UnsupportedGenerationError, match="sliding window") as refused:
                generate(shared(name), inputs, 12, **options)
            record_property("refused", str(refused.value))
            return
        output = generate(shared(name), inputs, 12, **options)
    # Some drafts were right, unless the model does not hand on what makes them so (Janus).
    in_circles = answers(output, inputs)[0][:8] == (CYCLE * 3)[:8]
    assert len(run.report.kv_tokens_per_step) < 12 or not in_circles
    assert_equal(name, PREFILL_ONLY, [sample], inputs, output)


@cell(mode="forward pass")
@each_method
@each_family
def test_a_bare_forward_pass(name, method):
    case, sample = METHODS[method], prompts(name)[1]
    inputs = FAMILIES[name].batch([sample])
    with torch.no_grad(), trim(shared(name), case.method) as run:
        found = shared(name)(**inputs).logits
    assert close(found[0, -1], follower(name, case).prefill(sample), REFERENCE)
    assert run.report.visual_tokens == [sample.visual]


@cell(mode="padding on the right")
@each_method
@each_family
def test_padding_on_the_right_in_a_forward_pass(name, method):
    case, samples = METHODS[method], prompts(name)
    inputs = FAMILIES[name].batch(samples, side="right")
    with torch.no_grad(), trim(shared(name), case.method):
        found = shared(name)(**inputs).logits
    for b, sample in enumerate(samples):
        expected = follower(name, case).prefill(sample)
        assert close_in_a_batch(name, found[b, len(sample.ids) - 1], expected)
