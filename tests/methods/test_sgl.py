"""SGL against brute force, in every way to generate, with and without exits."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from tests import guides, tiny
from tests.engine.test_against_oracle import TOLERANCE
from tests.engine.test_guide import NEW_TOKENS, an_end
from tests.engine.test_lifecycle import fingerprint
from tests.methods.dense import Dense
from vistrim import (
    PVTP,
    SGL,
    VTA,
    FasterVLM,
    LoadError,
    UnsupportedGenerationError,
    UnsupportedModelError,
    compose,
    get_method,
    trim,
)
from vistrim.engine.exits import merged

SAMPLES = {
    "ragged": tiny.RAGGED,
    "same-length": tiny.SAME_LENGTH,
    "text-only": [tiny.sample(1, 4), tiny.sample(0, 30)],
}


def sgl(fraction=0.4, keep=0.4, threshold=None, guide=None):
    return SGL(guide or guides.shared(), fraction, keep, threshold)


def dense(sample, layer, keep, new_tokens, text="llama"):
    """The large model for one sample, pruned by what brute force finds in the guide."""
    guide = guides.shared("llama", "eager")
    scores = guides.visual_scores(guide, sample, guides.greedy(guide, sample, new_tokens))
    rule = guides.Ranked(layer, math.floor(keep * len(scores)), scores)
    return Dense(tiny.shared(text, "eager"), rule)


def answers(output, inputs):
    sequences = getattr(output, "sequences", output)
    return sequences[:, inputs["input_ids"].shape[1] :].tolist()


def plain(model, inputs, new_tokens=NEW_TOKENS, **options):
    """Sequences alone, as a call with exits gives them."""
    return model.generate(**inputs, **{"max_new_tokens": new_tokens, "do_sample": False} | options)


@pytest.mark.parametrize(
    ("fraction", "keep", "layer"),
    [(0.4, 0.4, 2), (0.19, 0.3, 0), (0.0, 0.05, 0), (0.8, 0.0, 4)],
    ids=["middle", "rounds-to-input", "none-left", "late"],
)
@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
def test_equals_brute_force(samples, fraction, keep, layer):
    model, inputs = tiny.shared(), tiny.batch(samples)
    with trim(model, sgl(fraction, keep)) as run:
        output = tiny.generate(model, inputs, 5)
    for b, sample in enumerate(samples):
        expected = dense(sample, layer, keep, 5)
        logits = expected.follow(sample.ids, sample.pixels, answers(output, inputs)[b])
        assert (tiny.logits(output)[b] - logits).abs().max() <= TOLERANCE
        assert [n[b] for n in run.report.kv_tokens_per_layer] == expected.kv_lengths
        assert [n[b] for n in run.report.visual_tokens_per_layer] == list(map(len, expected.kept))
        for stage in run.report.stages:
            assert stage.kept[b] == sorted(expected.kept[-1])
    assert [stage.layer for stage in run.report.stages] == [layer]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_is_the_untouched_model(attention):
    model, inputs = tiny.shared("llama", attention), tiny.batch(tiny.RAGGED)
    untouched = tiny.generate(model, inputs)
    for threshold in (None, 1.0):
        with trim(model, sgl(0.4, 1.0, threshold)):
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            if threshold is None:
                assert torch.equal(tiny.logits(tiny.generate(model, inputs)), tiny.logits(untouched))
        assert torch.equal(output, untouched.sequences)


def test_ties_go_to_the_earlier_token():
    """A guide without queries pays every token the same attention."""
    guide = guides.build()
    with torch.no_grad():
        for layer in guide.get_decoder().layers:
            layer.self_attn.q_proj.weight.zero_()
    model, sample = tiny.shared(), tiny.sample(2, 9)
    with trim(model, sgl(guide=guide, keep=0.25)) as run:
        tiny.generate(model, tiny.batch([sample]), 2)
    assert run.report.stages[0].kept == [list(range(8))]


@pytest.mark.parametrize("options", [{"do_sample": True, "num_return_sequences": 2}, {"num_beams": 3}])
def test_several_rows_for_each_sample_share_their_guidance(options):
    model, samples = tiny.shared(), tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    torch.manual_seed(2)
    with trim(model, sgl()) as run:
        greedy = tiny.generate(model, inputs, 4)
        output = tiny.generate(model, inputs, 4, output_scores=True, **options)
    copies = options.get("num_return_sequences", 1)
    for row, answer in enumerate(answers(output, inputs)):
        sample = samples[row // copies]
        expected = dense(sample, 2, 0.4, 4).follow(sample.ids, sample.pixels, answer)
        if "num_beams" in options:
            score = expected.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum() / len(answer)
            assert abs(score - output.sequences_scores[row]) <= 1e-3
        else:
            assert (tiny.logits(output)[row] - expected).abs().max() <= TOLERANCE
    rows = options.get("num_beams", copies)
    one, several = run.reports
    assert len(answers(greedy, inputs)) == 2
    assert several.stages[0].kept == [kept for kept in one.stages[0].kept for _ in range(rows)]
    # The guide has answered once for all of them.
    assert several.method_flops == [n if row == 0 else 0 for n in one.method_flops for row in range(rows)]
    assert several.exited == [False] * 2 * rows


def test_without_cache_equals_with_cache():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    for fraction in (0.0, 0.4):
        with trim(model, sgl(fraction)) as run:
            cached = tiny.generate(model, inputs)
            repeated = tiny.generate(model, inputs, use_cache=False)
        assert torch.equal(cached.sequences, repeated.sequences)
        assert (tiny.logits(cached) - tiny.logits(repeated)).abs().max() <= TOLERANCE
        assert run.reports[0].stages == run.reports[1].stages


def test_prompt_lookup_decoding_gives_the_same_answer():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, sgl()) as run:
        first = tiny.generate(model, inputs, 24)
        looked_up = tiny.generate(model, inputs, 24, prompt_lookup_num_tokens=3, max_matching_ngram_size=1)
    assert torch.equal(first.sequences, looked_up.sequences)
    assert run.reports[0].stages == run.reports[1].stages


def test_half_precision_model_and_full_precision_guide():
    model, inputs = tiny.build().to(torch.bfloat16), tiny.batch(tiny.RAGGED)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with trim(model, sgl(threshold=1.0)) as run:
        plain(model, inputs)
    assert run.report.kv_bytes < run.report.kv_bytes_full
    with trim(tiny.shared(), sgl(guide=guides.build().to(torch.bfloat16), threshold=1.0)) as other:
        plain(tiny.shared(), tiny.batch(tiny.RAGGED))
    assert all(0 < score < 1 for score in run.report.exit_scores + other.report.exit_scores)


def test_annealing_behind_guided_cuts():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, compose(sgl(), VTA("linear", 6, 0.0))) as run:
        tiny.generate(model, inputs)
    assert run.report.kv_tokens_per_layer == [[s.text + 7 for s in tiny.RAGGED]] * tiny.DEPTH
    assert run.report.guide_seconds > 0
    with trim(model, sgl()) as alone:
        tiny.generate(model, inputs)
    assert run.report.stages == alone.report.stages


def test_a_prompt_without_images_needs_no_guide():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(0, 12)])
    with torch.no_grad(), trim(model, sgl()) as run:
        output = tiny.generate(model, inputs)
        model(**inputs)
    assert torch.equal(tiny.logits(output), tiny.logits(tiny.generate(model, inputs)))
    assert [report.guide_seconds for report in run.reports] == [0.0, 0.0]
    with trim(model, sgl(threshold=0.0)) as run:
        answered = plain(model, inputs)
    assert answers(answered, inputs)[0] == guides.greedy(guides.shared(), tiny.sample(0, 12), NEW_TOKENS)


def test_arguments_by_position_and_a_generation_config():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, sgl()) as run:
        expected = plain(model, inputs, 5)
        ids = inputs.pop("input_ids")
        assert torch.equal(model.generate(ids, GenerationConfig(max_new_tokens=5), **inputs), expected)
    assert run.reports[0].stages == run.reports[1].stages


def test_threads_generate_at_the_same_time():
    model = tiny.shared()
    samples = [tiny.sample(1 + i % 2, 6 + i, seed=i) for i in range(3)]
    with trim(model, sgl()) as run:
        alone = [tiny.generate(model, tiny.batch([s]), 4) for s in samples]
        together = tiny.in_threads(lambda s: tiny.generate(model, tiny.batch([s]), 4), samples)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(tiny.logits(a), tiny.logits(b))
    assert len(run.reports) == 6


def test_two_models_share_a_guide():
    first, second, inputs = tiny.shared(), tiny.shared("qwen2"), tiny.batch(tiny.RAGGED)
    with trim(first, sgl()) as one, trim(second, sgl()) as two:
        tiny.generate(first, inputs)
        tiny.generate(second, inputs)
    assert one.report.stages == two.report.stages


# --- exits ---


def scores_of(samples, **options):
    model, inputs = tiny.shared(), tiny.batch(samples)
    with trim(model, sgl(threshold=1.0)) as run:
        plain(model, inputs, **options)
    return run.report.exit_scores


@pytest.mark.parametrize(("exits", "use_cache"), [(0, True), (1, True), (2, True), (3, True), (1, False), (3, False)])
def test_the_model_answers_only_what_the_guide_does_not(exits, use_cache):
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
    assert report.exit_scores == pytest.approx([r.exit_scores[0] for r in each], abs=1e-6)
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
    assert any("answered alone" in label for label, _ in report.rows())


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
    assert not any("answered alone" in label for label, _ in run.report.rows())


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


def test_nothing_stays_on_either_model():
    model, guide, inputs = tiny.build(), guides.build(), tiny.batch(tiny.RAGGED)
    for used in (model, guide):
        tiny.generate(used, inputs)
    before = fingerprint(model), fingerprint(guide)
    expected = tiny.generate(model, inputs)
    for threshold in (0.0, 1.0):
        with trim(model, sgl(threshold=threshold, guide=guide)):
            plain(model, inputs)
            # Between its answers the guide is as it was.
            assert fingerprint(guide) == before[1]
    assert (fingerprint(model), fingerprint(guide)) == before
    assert torch.equal(tiny.logits(tiny.generate(model, inputs)), tiny.logits(expected))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["guide", "model"])
def test_after_an_error_the_next_call_is_as_any_other(error, where):
    model, guide, inputs = tiny.build(), guides.build(), tiny.batch(tiny.RAGGED)

    def fail(module, args):
        raise error

    with trim(model, sgl(guide=guide)) as run:
        expected = tiny.generate(model, inputs)
        handle = (guide if where == "guide" else model).get_decoder().layers[1].register_forward_pre_hook(fail)
        with pytest.raises(error):
            tiny.generate(model, inputs)
        handle.remove()
        again = tiny.generate(model, inputs)
        with torch.no_grad(), pytest.raises(UnsupportedGenerationError, match="bare forward pass"):
            model(**inputs)
    assert torch.equal(tiny.logits(again), tiny.logits(expected))
    assert len(run.reports) == 2


# --- refusals ---


def test_a_forward_pass_by_hand_is_refused():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)

    def aside(ids, scores):
        model(**inputs, use_cache=True)
        return scores

    with torch.no_grad(), trim(model, sgl()) as run:
        with pytest.raises(UnsupportedGenerationError, match=r"call model\.generate"):
            model(**inputs)
        with pytest.raises(UnsupportedGenerationError, match=r"call model\.generate"):
            tiny.generate(model, inputs, logits_processor=[aside])
        tiny.generate(model, inputs, 2)
    assert run.report.generated_tokens == 2


def test_a_later_turn_is_refused():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, sgl()):
        first = tiny.generate(model, inputs)
        with pytest.raises(UnsupportedGenerationError, match="the whole conversation without `past_key_values`"):
            tiny.generate(model, tiny.follow_up(first, inputs, torch.tensor([[5, 6]] * 3)))


def test_inputs_that_the_guide_cannot_have_are_refused():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    embedded = dict(inputs, inputs_embeds=model.get_input_embeddings()(inputs["input_ids"]))
    del embedded["input_ids"]
    encoded = dict(inputs, mm_encoder_outputs={"image": model.get_image_features(inputs["pixel_values"])})
    del encoded["pixel_values"]
    with trim(model, sgl()):
        with pytest.raises(UnsupportedGenerationError, match="pass `input_ids`"):
            tiny.generate(model, embedded)
        with pytest.raises(UnsupportedGenerationError, match="pass `pixel_values`"):
            tiny.generate(model, encoded)


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"do_sample": True}, "pass do_sample=False"),
        ({"num_beams": 2}, "num_beams=1"),
        ({"do_sample": True, "num_return_sequences": 2}, "do_sample=False"),
        ({"return_dict_in_generate": True}, "leave out `return_dict_in_generate`"),
        ({"streamer": Streamer()}, "one sample at a time"),
        ({"logits_processor": [lambda ids, scores: scores]}, "leave out `logits_processor`"),
        ({"stopping_criteria": [lambda ids, scores: False]}, "leave out `stopping_criteria`"),
        ({"prefix_allowed_tokens_fn": lambda b, ids: [5]}, "leave out `prefix_allowed_tokens_fn`"),
        ({"stop_strings": ["x"]}, "leave out `stop_strings`"),
        ({"generation_config": GenerationConfig(do_sample=True, max_new_tokens=8)}, "do_sample=False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_exits_cannot_be_combined_with(options, way_out):
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, sgl(threshold=0.5)) as run:
        with pytest.raises(UnsupportedGenerationError, match=f"{way_out}.*exit_threshold"):
            model.generate(**inputs, **options)
        assert run.reports == []


MISFITS = {
    "model itself": (lambda: tiny.shared(), "the model itself"),
    "tokens": (lambda: misfit(patch_size=8), r"4 visual tokens per image, the model 16"),
    "image size": (lambda: misfit(image_size=32, patch_size=8), r"32 pixels, the model 16"),
    "image token": (lambda: misfit(image_token_index=151), r"image token id 151, the model 150"),
    "vocabulary": (lambda: guides.build(vocab_size=170), r"170 tokens, the model 160"),
    "class token": (lambda: misfit(vision_feature_select_strategy="full"), "17 visual tokens per image, the model 16"),
}


def misfit(**changes):
    import transformers

    config = tiny.config(**guides.SETTINGS)
    for name, value in changes.items():
        setattr(config if hasattr(config, name) else config.vision_config, name, value)
    return transformers.LlavaForConditionalGeneration(config).eval()


@pytest.mark.parametrize("case", MISFITS)
def test_guides_that_do_not_fit_are_refused(case):
    guide, says = MISFITS[case]
    with pytest.raises(ValueError, match=says):
        trim(tiny.shared(), sgl(guide=guide()))


def test_guides_of_no_supported_kind_are_refused():
    with pytest.raises(UnsupportedModelError, match="cannot be a guide: Linear"):
        trim(tiny.shared(), SGL(torch.nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="sgl:guide=reference-small"):
        trim(tiny.shared(), SGL())
    with pytest.raises(LoadError, match="no model directory"):
        trim(tiny.shared(), SGL("./nowhere"))


def test_a_guide_that_is_being_trimmed_is_refused():
    model, guide, inputs = tiny.build(), guides.build(), tiny.batch(tiny.RAGGED)
    run = trim(model, sgl(guide=guide))
    with trim(guide, PVTP()):
        with pytest.raises(UnsupportedModelError, match="the guide is being trimmed"):
            trim(model, sgl(guide=guide))
        with pytest.raises(UnsupportedModelError, match="the guide is being trimmed"):
            run.attach()
    with run:
        with trim(guide, PVTP()), pytest.raises(UnsupportedModelError, match="the guide is being trimmed"):
            tiny.generate(model, inputs)
        tiny.generate(model, inputs)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"guide": 3}, "guide=3: must be a model"),
        ({"layer_fraction": 1.1}, "layer_fraction=1.1"),
        ({"layer_fraction": -0.1}, "between 0 and 1"),
        ({"keep_ratio": 2}, "keep_ratio=2"),
        ({"exit_threshold": -0.5}, "at least 0"),
        ({"exit_threshold": math.nan}, "at least 0"),
    ],
)
def test_parameters_out_of_range(parameters, message):
    with pytest.raises(ValueError, match=message):
        get_method("sgl", **parameters)


def test_a_cut_behind_the_last_layer_is_refused():
    with pytest.raises(ValueError, match="all 5 decoder layers"):
        trim(tiny.shared(), sgl(1.0))


def test_it_acts_where_other_methods_before_and_in_prefill_do():
    for other in (FasterVLM(5), PVTP()):
        with pytest.raises(ValueError, match="both act"):
            compose(other, sgl())


def test_notation_names_the_guide():
    assert str(SGL("reference-small", 0.2, 0.3)) == (
        "sgl:guide=reference-small,layer_fraction=0.2,keep_ratio=0.3,exit_threshold=None"
    )
    guide = guides.build()
    assert str(SGL(guide)).startswith("sgl:guide=LlavaForConditionalGeneration,")
    guide.name_or_path = "somewhere/small"
    assert str(SGL(guide)).startswith("sgl:guide=small,")


def test_a_guide_given_by_name_is_loaded_once(tmp_path, monkeypatch):
    import vistrim.loading

    loaded = []

    def load(name, dtype, device):
        loaded.append((name, dtype, device))
        return guides.shared(), None

    monkeypatch.setattr(vistrim.loading, "load", load)
    method, model, inputs = SGL("small"), tiny.shared(), tiny.batch(tiny.RAGGED)
    for chosen in (method, method, compose(method, VTA())):
        with trim(model, chosen) as run:
            tiny.generate(model, inputs, 2)
    assert loaded == [("small", torch.float32, "cpu")]
    assert run.reports[0].method.startswith("sgl:guide=small,")
    assert copy.copy(method) == method == SGL("small")
