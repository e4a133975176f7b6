"""Every supported way to generate equals the independent computation."""

import pytest
import torch
from transformers import DynamicCache

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.test_against_oracle import follow
from tests.oracle import Oracle, st3_schedule
from vistrim import PVTP, ST3, VTA, Uniform, trim
from vistrim.engine.releases import CACHE

NEW_TOKENS = 5
PREFILL_ONLY = PVTP(1, 2, 0.5), {"start": 1, "stride": 2, "ratio": 0.5}
BOTH = (
    ST3(1, 2, 0.3, "cosine", 7, 0.1, interval=1),
    {"start": 1, "stride": 2, "ratio": 0.3, "decay": "cosine", "horizon": 7, "floor": 0.1},
)
EACH = pytest.mark.parametrize(("method", "schedule"), [PREFILL_ONLY, BOTH], ids=["pvtp", "st3"])


def oracle_for(schedule, text="llama", **options):
    return Oracle(tiny.shared(text, "eager"), st3_schedule(**schedule), **options)


def generate(model, inputs, new_tokens=NEW_TOKENS, **options):
    return tiny.generate(model, inputs, new_tokens, **options)


def answers(output, inputs):
    return output.sequences[:, inputs["input_ids"].shape[1] :].tolist()


@EACH
def test_sampling_with_several_answers(method, schedule):
    samples = tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    model = tiny.shared()
    torch.manual_seed(5)
    with trim(model, method) as run:
        output = generate(model, inputs, do_sample=True, num_return_sequences=2)
    assert len(set(map(tuple, answers(output, inputs)))) > 2
    for row, answer in enumerate(answers(output, inputs)):
        expected = follow(oracle_for(schedule), samples[row // 2], answer)
        assert close(tiny.logits(output)[row], expected)
    assert run.report.visual_tokens == [samples[0].visual] * 2 + [samples[1].visual] * 2


@covering(1)
@EACH
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_beam_search(method, schedule, attention):
    samples = tiny.RAGGED
    inputs = tiny.batch(samples)
    model = tiny.shared("llama", attention)
    with trim(model, method):
        output = generate(model, inputs, num_beams=3, output_scores=True, length_penalty=0.0)
    for row, answer in enumerate(answers(output, inputs)):
        logits = follow(oracle_for(schedule), samples[row], answer)
        score = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
        assert close(output.sequences_scores[row], score)


def test_prompt_lookup_decoding_gives_the_same_answer():
    method, schedule = PREFILL_ONLY
    sample = tiny.sample(1, 9)
    inputs = tiny.batch([sample])
    model = tiny.shared()
    with trim(model, method) as run:
        plain = generate(model, inputs, 24)
        looked_up = generate(model, inputs, 24, prompt_lookup_num_tokens=3, max_matching_ngram_size=1)
    assert torch.equal(plain.sequences, looked_up.sequences)
    first, second = run.reports
    assert first.kv_tokens_per_layer == second.kv_tokens_per_layer
    assert first.stages == second.stages
    expected = follow(oracle_for(schedule), sample, answers(looked_up, inputs)[0])
    assert close(tiny.logits(looked_up)[0], expected)


ENDS_WITH_IMAGE = tiny.Sample(tiny.sample(1, 9).ids[: 4 + tiny.TOKENS_PER_IMAGE], tiny.sample(1, 9).pixels)


@pytest.mark.parametrize(
    "samples", [[tiny.sample(2, 9)], tiny.RAGGED, [ENDS_WITH_IMAGE]], ids=["one", "batch", "ends with image"]
)
def test_without_cache_equals_with_cache(samples):
    model = tiny.shared()
    inputs = tiny.batch(samples)
    with trim(model, PVTP(1, 2, 0.5)) as run:
        cached = generate(model, inputs)
        repeated = generate(model, inputs, use_cache=False)
    assert torch.equal(cached.sequences, repeated.sequences)
    assert close(tiny.logits(cached), tiny.logits(repeated))
    assert run.reports[0].visual_tokens_per_layer == run.reports[1].visual_tokens_per_layer
    assert run.report.kv_bytes == 0
    assert run.report.kv_fraction_mean is None


@covering
@EACH
@pytest.mark.parametrize("images", [0, 1], ids=["text", "new-image"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_second_turn_on_the_returned_cache(method, schedule, images, attention):
    sample = tiny.sample(1, 9)
    more = tiny.sample(images, 5, seed=7)
    inputs = tiny.batch([sample])
    model = tiny.shared("llama", attention)
    with trim(model, method) as run:
        first = generate(model, inputs)
        turn = tiny.follow_up(first, inputs, torch.tensor([more.ids]), more.pixels if images else None)
        second = generate(model, turn)
    oracle = oracle_for(schedule)
    follow(oracle, sample, answers(first, inputs)[0])
    # The last generated token was returned, but never read: it is read with the new prompt.
    unread = answers(first, inputs)[0][-1:]
    follow_up = tiny.Sample(unread + more.ids, more.pixels)
    expected = follow(oracle, follow_up, answers(second, turn)[0])
    assert close(tiny.logits(second)[0], expected)
    assert [layer.keys.shape[-2] for layer in second[CACHE].layers] == oracle.kv_lengths()
    assert len(run.reports) == 2


def test_second_turn_of_a_batch_with_padding_between_the_turns():
    """The shorter new question is padded on its left, in the middle of the sequence."""
    method, schedule = PREFILL_ONLY
    samples, model = tiny.RAGGED[:2], tiny.shared()
    inputs = tiny.batch(samples)
    more = [tiny.sample(0, 5, seed=8), tiny.sample(0, 8, seed=9)]
    padded = tiny.batch(more)
    with trim(model, method):
        first = generate(model, inputs)
        turn = tiny.follow_up(first, inputs, padded["input_ids"])
        turn["attention_mask"][:, -padded["attention_mask"].shape[1] :] = padded["attention_mask"]
        second = generate(model, turn)
    for b, sample in enumerate(samples):
        oracle = oracle_for(schedule)
        follow(oracle, sample, answers(first, inputs)[b])
        new = tiny.Sample(answers(first, inputs)[b][-1:] + more[b].ids, more[b].pixels)
        expected = follow(oracle, new, answers(second, turn)[b])
        assert close(tiny.logits(second)[b], expected)


@EACH
def test_cache_made_by_the_user(method, schedule):
    sample, model = tiny.sample(1, 9), tiny.shared()
    inputs = tiny.batch([sample])
    for cache in (DynamicCache(), DynamicCache(config=model.config.text_config)):
        with trim(model, method):
            output = generate(model, inputs, **{CACHE: cache})
        expected = follow(oracle_for(schedule), sample, answers(output, inputs)[0])
        assert close(tiny.logits(output)[0], expected)


def test_mask_that_is_wider_than_the_prompt():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)):
        expected = model(**inputs).logits[:, -1]
        inputs["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 5))
        wide = model(**inputs, **{CACHE: DynamicCache()}).logits[:, -1]
    assert close(wide, expected)


def test_embeddings_instead_of_ids():
    method, schedule = PREFILL_ONLY
    sample, model = tiny.sample(2, 9), tiny.shared()
    inputs = tiny.batch([sample])
    embedded = {
        "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"]),
        "attention_mask": inputs["attention_mask"],
        "pixel_values": inputs["pixel_values"],
    }
    with trim(model, method) as run:
        output = generate(model, embedded)
    expected = follow(oracle_for(schedule), sample, output.sequences[0].tolist())
    assert close(tiny.logits(output)[0], expected)
    assert run.report.generated_tokens == NEW_TOKENS


def test_right_padding_in_a_forward_pass():
    method, schedule = PREFILL_ONLY
    samples, model = tiny.RAGGED, tiny.shared()
    inputs = tiny.batch(samples, side="right")
    with torch.no_grad(), trim(model, method):
        logits = model(**inputs).logits
    for b, sample in enumerate(samples):
        expected = oracle_for(schedule).prefill(sample.ids, sample.pixels)
        assert close(logits[b, len(sample.ids) - 1], expected)


def test_loss_ranks_by_the_last_prompt_token():
    """With labels, tokens are chosen as they would be while generating, when the answer is not known yet."""
    method, schedule = PREFILL_ONLY
    sample, model = tiny.sample(1, 12), tiny.shared()
    inputs = tiny.batch([sample])
    answer = 4
    labels = inputs["input_ids"].clone()
    labels[:, :-answer] = -100
    with torch.no_grad(), trim(model, method):
        output = model(**inputs, labels=labels)
    prompt = sample.ids[:-answer]
    with trim(model, method):
        asked = generate(model, tiny.batch([tiny.Sample(prompt, sample.pixels)]), 1)
    assert close(output.logits[0, -answer - 1], tiny.logits(asked)[0, 0])
    expected = torch.nn.functional.cross_entropy(output.logits[0, -answer - 1 : -1], labels[0, -answer:])
    assert close(output.loss, expected)
    oracle = oracle_for(schedule)
    last = oracle.prefill(sample.ids, sample.pixels, ranking=len(prompt) - 1)
    assert close(output.logits[0, -1], last)


@pytest.mark.parametrize("seed", range(4))
def test_prompt_that_ends_with_an_image_keeps_its_last_token(seed):
    sample = ENDS_WITH_IMAGE
    model = tiny.build(seed=seed)
    inputs = tiny.batch([sample, tiny.sample(1, 12)])
    with trim(model, PVTP(1, 1, 0.7)) as run:
        output = generate(model, inputs)
    schedule = {"start": 1, "stride": 1, "ratio": 0.7}
    oracle = Oracle(tiny.build(attention="eager", seed=seed), st3_schedule(**schedule))
    steps = [oracle.prefill(sample.ids, sample.pixels, protected=[len(sample.ids) - 1])]
    steps += [oracle.decode(token) for token in answers(output, inputs)[0][:-1]]
    assert close(tiny.logits(output)[0], torch.stack(steps))
    assert run.report.visual_tokens == [tiny.TOKENS_PER_IMAGE - 1, tiny.TOKENS_PER_IMAGE]


def test_input_stage_never_drops_the_last_token():
    sample, model = ENDS_WITH_IMAGE, tiny.shared()
    with trim(model, Uniform(0.01)) as run:
        output = generate(model, tiny.batch([sample]), 2)
    assert tiny.logits(output)[0, 0].abs().max() > 0
    assert run.report.kv_tokens_per_layer[0] == [sample.text + 1 + 1 + 1]


def test_label_directly_behind_an_image_has_a_true_loss():
    sample, model = tiny.sample(1, 12), tiny.shared()
    inputs = tiny.batch([sample])
    image_end = 4 + tiny.TOKENS_PER_IMAGE
    labels = inputs["input_ids"].clone()
    labels[:, :image_end] = -100
    with torch.no_grad(), trim(model, PVTP(1, 1, 0.7)):
        output = model(**inputs, labels=labels)
    oracle = Oracle(tiny.shared("llama", "eager"), st3_schedule(start=1, stride=1, ratio=0.7))
    oracle.prefill(sample.ids[:image_end], sample.pixels, protected=[image_end - 1])
    # The same rows, read in two pieces.
    expected = oracle.prefill(sample.ids[image_end:], None)
    assert close(output.logits[0, -1], expected)
    assert output.logits[0, image_end - 1].abs().max() > 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_flow_to_the_image(checkpointing):
    sample, model = tiny.sample(1, 12), tiny.build()
    inputs = tiny.batch([sample])
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    gradients = []
    for way in ("plain", "recomputing"):
        if way == "recomputing" and checkpointing:
            model.train()
            model.activation_checkpointing_enable({"use_reentrant": False})
        inputs["pixel_values"] = inputs["pixel_values"].detach().requires_grad_()
        with trim(model, PVTP(1, 2, 0.5)) as run:
            model(**inputs, labels=labels).loss.backward()
        gradients.append(inputs["pixel_values"].grad)
        assert run.report.prefill_flops < run.report.prefill_flops_full
    assert gradients[0].abs().sum() > 0
    assert close(*gradients)


def test_number_of_logits_changes_the_choice_only_if_it_gives_the_end_of_the_prompt():
    """See also tests/regressions/test_scoring_passes.py."""
    sample, model = tiny.sample(1, 12), tiny.shared()
    inputs = tiny.batch([sample])
    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)) as run:
        # All, the last one, and so many that they begin in front of the image.
        for wanted in (0, 1, len(sample.ids) - 1):
            model(**inputs, logits_to_keep=wanted)
        assert all(report.stages == run.reports[0].stages for report in run.reports)
        model(**inputs, logits_to_keep=4)
        with run.answer_from(len(sample.ids) - 3):
            model(**inputs)
    assert run.reports[-2].stages == run.reports[-1].stages


def test_positional_arguments():
    method = PREFILL_ONLY[0]
    sample, model = tiny.sample(1, 12), tiny.shared()
    inputs = tiny.batch([sample])
    ids, pixels, mask = inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"]
    with torch.no_grad(), trim(model, method) as run:
        by_name = model(**inputs).logits
        assert torch.equal(model(ids, pixels, mask).logits, by_name)
        assert torch.equal(model.lm_head(model.model(ids, pixels, mask).last_hidden_state), by_name)
        model.get_decoder()(ids.clamp(max=100))
    first, *others, text = run.reports
    assert all(report.stages == first.stages for report in others)
    assert text.visual_tokens == [0]


def test_cache_made_without_the_method_and_padded_can_be_continued_with_it():
    """Padding of the earlier turn is taken over; its image tokens are not known, and stay."""
    model, method = tiny.shared(), PREFILL_ONLY[0]
    samples = tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    more = [tiny.sample(1, 5, seed=s) for s in (7, 8)]
    outputs = []
    for together in (True, False):
        for rows in ([0, 1],) if together else ([0], [1]):
            part = tiny.batch([samples[i] for i in rows])
            first = generate(model, part)
            ids = torch.tensor([more[i].ids for i in rows])
            turn = tiny.follow_up(first, part, ids, torch.cat([more[i].pixels for i in rows]))
            with trim(model, method):
                outputs.append(tiny.logits(generate(model, turn)))
    assert inputs["attention_mask"].min() == 0
    together, *alone = outputs
    assert close(together, torch.cat(alone))


def test_hidden_states_and_attentions_have_the_lengths_that_were_computed():
    samples, model = tiny.RAGGED, tiny.shared("llama", "eager")
    inputs = tiny.batch(samples)
    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)) as run:
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
    full = inputs["input_ids"].shape[1]
    cut = [max(s.text + n[b] for b, s in enumerate(samples)) for n in run.report.visual_tokens_per_layer]
    widths = [full, *cut[1:]]
    assert [tuple(w.shape[-2:]) for w in output.attentions] == [(n, n) for n in widths]
    # The states before a layer are those that the layer before it gave.
    assert [h.shape[1] for h in output.hidden_states[:-1]] == [full, *widths[:-1]]
    assert output.logits.shape[1] == output.hidden_states[-1].shape[1] == full


def test_threads_generate_at_the_same_time():
    model = tiny.shared()
    samples = [tiny.sample(1 + i % 2, 6 + i, seed=i) for i in range(4)]
    with trim(model, BOTH[0]) as run:
        alone = [generate(model, tiny.batch([s])) for s in samples]
        together = tiny.in_threads(lambda s: generate(model, tiny.batch([s])), samples)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(tiny.logits(a), tiny.logits(b))
    assert len(run.reports) == 2 * len(samples)
    visual = sorted(s.visual for s in samples)
    assert sorted(r.visual_tokens[0] for r in run.reports[len(samples) :]) == visual


def test_interleaved_generations_do_not_mix():
    """State lives in the caches: two token loops can take turns."""
    model, method = tiny.shared(), BOTH[0]
    samples = [tiny.sample(1, 9), tiny.sample(2, 7, seed=3)]
    with torch.no_grad(), trim(model, method) as run:
        expected = [generate(model, tiny.batch([s]), 5) for s in samples]
        outputs = []
        for s in samples:
            outputs.append([model(**tiny.batch([s]), use_cache=True)])
        for _ in range(4):
            for steps in outputs:
                token = steps[-1].logits[:, -1:].argmax(-1)
                steps.append(model(input_ids=token, **{CACHE: steps[-1][CACHE]}))
    for one, steps in zip(expected, outputs, strict=True):
        logits = torch.stack([step.logits[:, -1] for step in steps], 1)
        assert close(logits, tiny.logits(one))
    by_generate, by_hand = run.reports[:2], run.reports[2:]
    for a, b in zip(by_generate, by_hand, strict=True):
        assert a.kv_tokens_per_layer == b.kv_tokens_per_layer
        assert a.kv_fraction_mean == b.kv_fraction_mean


def test_text_only_prompt_is_left_alone():
    sample, model = tiny.sample(0, 12), tiny.shared()
    inputs = tiny.batch([sample])
    untouched = generate(model, inputs)
    with trim(model, ST3()) as run:
        output = generate(model, inputs)
    assert torch.equal(tiny.logits(untouched), tiny.logits(output))
    assert "no visual tokens" in run.report.warnings[0]


def test_generated_placeholder_is_text():
    """A placeholder id that the model generates is an ordinary token, and is never trimmed."""
    model = tiny.build()
    sample = tiny.sample(1, 9)
    only_placeholders = torch.full((tiny.VOCABULARY,), -torch.inf)
    only_placeholders[tiny.IMAGE] = 0.0
    with trim(model, VTA("linear", 3, 0.0, interval=1)) as run:
        output = generate(model, tiny.batch([sample]), 6, logits_processor=[lambda ids, s: s + only_placeholders])
    assert answers(output, tiny.batch([sample]))[0] == [tiny.IMAGE] * 6
    assert run.report.kv_tokens_per_layer == [[sample.text + 5]] * tiny.DEPTH
