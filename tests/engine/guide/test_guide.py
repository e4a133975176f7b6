"""The guide model's answer, attention and confidence, against brute force."""

import math
import threading

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tests import guides, tiny
from tests.closeness import close
from tests.engine.test_lifecycle import fingerprint
from tests.families.zoo import FAMILIES
from vistrim import PVTP, SGL, FastV, UnsupportedGenerationError, UnsupportedModelError, trim
from vistrim.architectures import discover
from vistrim.core import scores as core_scores
from vistrim.core.costs import decode_flops, prefill_flops
from vistrim.engine.generation import GenerateCall
from vistrim.engine.guide.exit_score import exit_score, log_probability
from vistrim.engine.guide.guide import Guide
from vistrim.methods.base.guidance import Guidance

NEW_TOKENS = 5
TEXT_ONLY = [tiny.sample(1, 4), tiny.sample(0, 30)]
ENDS_WITH_IMAGE = [tiny.Sample(tiny.sample(1, 9).ids[: 4 + tiny.TOKENS_PER_IMAGE], tiny.sample(1, 9).pixels)]
SAMPLES = {
    "one": [tiny.sample(2, 9)],
    "ragged": tiny.RAGGED,
    "same-length": tiny.SAME_LENGTH,
    "text-only": TEXT_ONLY,
    "ends-with-image": [*ENDS_WITH_IMAGE, tiny.sample(1, 12)],
}


def ask(guide, samples, threshold=None, model=None, **options):
    """Let a guide answer a batch as if a call of the model's ``generate`` had asked for it."""
    model = model or tiny.shared()
    options = {"max_new_tokens": NEW_TOKENS} | options
    if options["max_new_tokens"] is None:
        del options["max_new_tokens"]
    call = GenerateCall.of(model, model.generate, (), tiny.batch(samples) | options)
    return Guide(Guidance(guide, threshold, 0.05), discover(model)).answer(call)


def an_end(guide, samples, new_tokens=NEW_TOKENS):
    """A token that ends some answers before others."""
    answers = [guides.greedy(guide, sample, new_tokens) for sample in samples]
    return next(token for token in answers[0][1:] if len({a.index(token) if token in a else -1 for a in answers}) > 1)


def compare(answer, guide, samples, ends=(), new_tokens=NEW_TOKENS):
    """With brute force on a guide with eager attention."""
    width = answer.received.shape[1]
    for b, sample in enumerate(samples):
        expected = guides.greedy(guide, sample, new_tokens, ends)
        assert answer.tokens[b, : answer.lengths[b]].tolist() == expected
        received = guides.received(guide, sample, expected)
        found = answer.received[b, width - len(sample.ids) :]
        visual = torch.tensor(sample.ids) == tiny.IMAGE
        assert close(found[visual], received[visual])
    assert answer.prompt_tokens == tuple(len(s.ids) for s in samples)
    assert answer.images == tuple(len(s.pixels) for s in samples)


@pytest.mark.parametrize(
    ("text", "attention", "samples"),
    [*(("llama", "sdpa", name) for name in SAMPLES), ("llama", "eager", "ragged"), ("qwen2", "sdpa", "ragged")],
)
def test_answers_and_sums_equal_brute_force(text, attention, samples):
    samples = SAMPLES[samples]
    answer = ask(guides.shared(text, attention), samples)
    assert answer.received.dtype == torch.float32
    assert answer.exit_scores == ()
    compare(answer, guides.shared(text, "eager"), samples)


@pytest.mark.parametrize("samples", [tiny.RAGGED, tiny.SAME_LENGTH], ids=["ragged", "same-length"])
def test_rows_behind_the_end_of_an_answer_do_not_count(samples):
    eager = guides.shared("llama", "eager")
    end = an_end(eager, samples)
    answer = ask(guides.shared(), samples, eos_token_id=end)
    assert len(set(answer.lengths)) > 1
    compare(answer, eager, samples, ends=(end,))


def test_a_sliding_window_forgets_the_first_tokens():
    samples = tiny.RAGGED[:2]
    guide, eager = (guides.build("mistral", attention, sliding_window=12) for attention in ("sdpa", "eager"))
    compare(ask(guide, samples, max_new_tokens=16), eager, samples, new_tokens=16)


def test_without_a_mask():
    samples, guide = tiny.SAME_LENGTH, guides.shared()
    inputs = tiny.batch(samples)
    del inputs["attention_mask"]
    model = tiny.shared()
    call = GenerateCall.of(model, model.generate, (), inputs | {"max_new_tokens": NEW_TOKENS})
    unmasked = Guide(Guidance(guide, None, 0.05), discover(model)).answer(call)
    assert torch.equal(unmasked.received, ask(guide, samples).received)


@pytest.mark.parametrize(("attention", "samples"), [*(("sdpa", name) for name in SAMPLES), ("eager", "ragged")])
def test_exit_scores_equal_brute_force(attention, samples):
    samples = SAMPLES[samples]
    eager = guides.shared("llama", "eager")
    end = an_end(eager, samples) if len(samples) > 2 else 2
    answer = ask(guides.shared("llama", attention), samples, 0.5, eos_token_id=end)
    for sample, score in zip(samples, answer.exit_scores, strict=True):
        if sample.ids[-1] == tiny.IMAGE:
            continue
        expected = guides.exit_score(eager, sample, guides.greedy(eager, sample, NEW_TOKENS, (end,)))
        assert close(score, expected)


def test_a_prompt_that_ends_with_an_image_is_read_again_with_its_last_token():
    """One of the other 15 tokens stays beside it."""
    (sample,) = ENDS_WITH_IMAGE
    eager = guides.shared("llama", "eager")
    answer = ask(guides.shared(), [sample], 0.5)
    given = guides.greedy(eager, sample, NEW_TOKENS)
    scores = guides.visual_scores(eager, sample, given)
    scores[-1] = torch.inf
    logits = guides.Dense(eager, guides.Ranked(0, 2, scores)).follow(sample.ids, sample.pixels, given)
    read_again = logits.log_softmax(-1).gather(1, torch.tensor(given)[:, None]).sum().exp()
    plain = guides.Dense(eager).follow(sample.ids, sample.pixels, given)
    confidence = plain.log_softmax(-1).gather(1, torch.tensor(given)[:, None]).mean().exp()
    assert close(answer.exit_scores[0], (confidence + read_again) / 2)


def test_a_batch_equals_its_samples():
    end = an_end(guides.shared(), tiny.RAGGED)
    together = ask(guides.shared(), tiny.RAGGED, 0.5, eos_token_id=end)
    for b, sample in enumerate(tiny.RAGGED):
        alone = ask(guides.shared(), [sample], 0.5, eos_token_id=end)
        assert close(together.exit_scores[b], alone.exit_scores[0])
        assert together.flops[b] == alone.flops[0]
        width = alone.received.shape[1]
        assert close(together.received[b, -width:], alone.received[0])


def test_never_more_than_a_few_rows_of_attention_at_once(monkeypatch):
    sizes = []
    original = core_scores.attention_weights

    def spy(query, key, visible, softmax):
        sizes.append(query.shape[2])
        return original(query, key, visible, softmax)

    monkeypatch.setattr(core_scores, "attention_weights", spy)
    ask(guides.shared(), [tiny.sample(1, 100)])
    # The 97 words behind the image, and then one row at a time.
    depth = guides.SETTINGS["num_hidden_layers"]
    assert core_scores.ROWS_AT_ONCE == 32
    assert sizes == [32, 32, 32, 1] * depth + [1] * depth * (NEW_TOKENS - 1)
    assert guides.shared().config.text_config._attn_implementation == "sdpa"


def test_flops_equal_a_count_of_the_matrix_products():
    """Counted by torch without the head, but with the few rows that score."""
    from torch.utils.flop_counter import FlopCounterMode

    guide, sample = guides.build(attention="eager"), tiny.sample(2, 9)
    with FlopCounterMode(display=False) as counter:
        plain = ask(guide, [sample])
    counts = counter.get_flop_counts()

    def total(part):
        found = counts[part]
        return sum(flops for operation, flops in found.items() if "convolution" not in str(operation))

    decoder = "LlavaForConditionalGeneration.model.language_model"
    counted = sum(map(total, (decoder, "CLIPVisionModel", "LlavaMultiModalProjector")))
    assert plain.flops[0] == pytest.approx(counted, rel=0.05)
    shape = discover(guide).decoder_shape
    scored = ask(guide, [sample], 0.5)
    # Of 32 visual tokens one is left; the answer's last token is not read.
    few, read = sample.text + 1, NEW_TOKENS - 1
    assert scored.flops[0] - plain.flops[0] == prefill_flops(shape, [few] * 3) + prefill_flops(
        shape, [read] * 3, [few] * 3
    )


def test_decoding_flops_are_those_of_growing_prompts():
    shape = discover(guides.shared()).decoder_shape
    whole = decode_flops(shape, 20, 5)
    assert whole == sum(prefill_flops(shape, [1] * 3, [20 + t] * 3) for t in range(5))
    assert decode_flops(shape, 20, 0) == 0


def test_the_guide_is_left_as_it_was():
    guide = guides.build()
    tiny.generate(guide, tiny.batch(tiny.RAGGED))
    before = fingerprint(guide)
    ask(guide, tiny.RAGGED, 0.5)
    assert fingerprint(guide) == before


@pytest.mark.parametrize(
    ("error", "passes"),
    [(RuntimeError, 0), (KeyboardInterrupt, 0), (KeyboardInterrupt, 2), (KeyboardInterrupt, NEW_TOKENS)],
    ids=["error-in-prefill", "in-prefill", "in-decode", "in-reading-again"],
)
def test_an_error_in_the_guide_leaves_nothing_behind(error, passes):
    guide = guides.build()
    tiny.generate(guide, tiny.batch(tiny.RAGGED))
    before, seen = fingerprint(guide), []

    def fail(module, args):
        seen.append(0)
        if len(seen) > passes:
            raise error

    handle = guide.get_decoder().layers[2].register_forward_pre_hook(fail)
    with pytest.raises(error):
        ask(guide, tiny.RAGGED, 0.5)
    handle.remove()
    assert fingerprint(guide) == before
    compare(ask(guide, tiny.RAGGED, 0.5), guides.build(attention="eager"), tiny.RAGGED)


def test_threads_share_a_guide():
    guide = guides.shared()
    samples = [tiny.sample(1 + i % 2, 6 + i, seed=i) for i in range(4)]
    alone = [ask(guide, [sample], 0.5) for sample in samples]
    together = tiny.in_threads(lambda sample: ask(guide, [sample], 0.5), samples)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.received, b.received)
        assert a.exit_scores == b.exit_scores


def test_another_thread_may_use_the_guide_meanwhile():
    guide, other = guides.build(), tiny.batch([tiny.sample(2, 5, seed=9)])
    with torch.no_grad():
        expected, plain = guide(**other).logits, ask(guide, tiny.RAGGED, 0.5)
    found = []

    @torch.no_grad()
    def use():
        found.append(guide(**other).logits)

    def interfere(module, args):
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()

    handle = guide.get_decoder().register_forward_pre_hook(interfere)
    disturbed = ask(guide, tiny.RAGGED, 0.5)
    handle.remove()
    # Every step of the answer, and reading it again: the prompt, and then the answer.
    assert len(found) == NEW_TOKENS + 2
    assert all(torch.equal(logits, expected) for logits in found)
    assert torch.equal(disturbed.received, plain.received)
    assert disturbed.exit_scores == plain.exit_scores


def test_the_length_of_the_answer_is_the_calls():
    guide, model = guides.build(), tiny.build()
    guide.generation_config.max_new_tokens = 3
    (sample,) = samples = [tiny.sample(1, 9)]
    lengths = [
        ask(guide, samples, model=model, **options).lengths
        for options in (
            {"max_new_tokens": 5},
            {"max_new_tokens": None, "max_length": len(sample.ids) + 4},
            {"max_new_tokens": None, "generation_config": transformers.GenerationConfig(max_new_tokens=7)},
            {"max_new_tokens": None},
        )
    ]
    assert lengths == [(5,), (4,), (7,), (20,)]
    model.generation_config.max_new_tokens = 2
    assert ask(guide, samples, model=model, max_new_tokens=None).lengths == (2,)


def test_an_answer_ends_where_either_model_would_end_it_unless_the_call_says_otherwise():
    guide, model = guides.build(), tiny.build()
    samples = [tiny.sample(1, 9)]
    plain = guides.greedy(guide, samples[0], NEW_TOKENS)
    first, second = plain.index(plain[2]) + 1, plain.index(plain[4]) + 1
    guide.generation_config.eos_token_id = plain[4]
    assert ask(guide, samples, model=model).lengths == (second,)
    model.generation_config.eos_token_id = [plain[2], 1]
    assert ask(guide, samples, model=model).lengths == (min(first, second),)
    assert ask(guide, samples, model=model, eos_token_id=plain[4]).lengths == (second,)
    assert ask(guide, samples, model=model, eos_token_id=None).lengths == (NEW_TOKENS,)
    config = transformers.GenerationConfig(eos_token_id=plain[4])
    assert ask(guide, samples, model=model, generation_config=config).lengths == (second,)


def test_settings_that_shape_the_answer_are_obeyed_and_sampling_is_not():
    guide, samples = guides.shared(), [tiny.sample(1, 9)]
    plain = ask(guide, samples).tokens[0].tolist()
    banned = ask(guide, samples, bad_words_ids=[[plain[0]]]).tokens[0].tolist()
    assert banned[0] != plain[0]
    sampled = ask(guide, samples, do_sample=True, temperature=9.0, num_beams=3, num_return_sequences=2)
    assert sampled.tokens.tolist() == [plain]


def test_a_guide_that_cannot_be_listened_to_is_refused():
    guide, samples = guides.build(), [tiny.sample(1, 9)]
    guide.generation_config.penalty_alpha = 0.6
    with pytest.raises(UnsupportedGenerationError, match="penalty_alpha"):
        ask(guide, samples)
    guide = guides.build()
    guide.set_attn_implementation("flex_attention")
    with pytest.raises(UnsupportedGenerationError, match="set_attn_implementation"):
        ask(guide, samples)
    with trim(guide, PVTP()), pytest.raises(UnsupportedModelError, match="guide model is being trimmed"):
        ask(guide, samples)


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), min_size=1, max_size=4))
def test_scores_from_probabilities(probabilities):
    """Each answer's tokens have the given probabilities; the second reading squares them."""
    lengths = torch.tensor([len(p) for p in probabilities])
    longest = int(lengths.max())
    steps = []
    for i in range(longest):
        p = torch.tensor([row[i] if i < len(row) else 0.5 for row in probabilities])
        steps.append(torch.stack([p, 1 - p], 1).log().clamp(min=-100))
    tokens = torch.zeros(len(probabilities), longest, dtype=torch.long)
    confidence = log_probability(steps, tokens, lengths)
    found = exit_score(confidence, 2 * confidence, lengths).tolist()
    for score, row in zip(found, probabilities, strict=True):
        product = math.prod(row)
        assert score == pytest.approx((product ** (1 / len(row)) + product**2) / 2, rel=1e-3)
        assert 0 <= score <= 1 + 1e-6


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next"])
def test_guides_of_other_families(name):
    """Their images differ in size, and the FLOPs of the guide model's vision tower are included."""
    family = FAMILIES[name]
    model, guide = family.build(), family.build(seed=1)
    inputs = family.batch([family.sample(1, 9), family.sample(2, 14, seed=1)])
    with trim(model, FastV()) as plain:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    with trim(model, SGL(guide, exit_threshold=None)) as run:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert run.report.prefill_flops < run.report.prefill_flops_full
    shape = discover(guide).decoder_shape
    decoder = sum(prefill_flops(shape, [tokens] * shape.layers) for tokens in run.report.prompt_tokens)
    assert sum(run.report.method_flops) > plain.report.vision_flops + decoder
