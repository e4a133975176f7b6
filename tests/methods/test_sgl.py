"""SGL against brute force, in every way to generate."""

import copy
import math

import pytest
import torch
from transformers import GenerationConfig

from tests import guides, tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.guide.test_guide import NEW_TOKENS
from tests.engine.test_lifecycle import fingerprint
from tests.methods.dense_reference import Dense
from vistrim import (
    SGL,
    VTA,
    UnsupportedGenerationError,
    compose,
    trim,
)
from vistrim.methods.base.named_model import NamedModel

SAMPLES = {
    "ragged": tiny.RAGGED,
    "same-length": tiny.SAME_LENGTH,
    "text-only": [tiny.sample(1, 4), tiny.sample(0, 30)],
}


def sgl(fraction=0.4, keep=0.4, threshold=None, guide=None):
    return SGL(guide or guides.shared(), fraction, keep, threshold)


def dense(sample, layer, keep, new_tokens, text="llama"):
    """The large model for one sample, pruned by the guide model's attention, computed by brute force."""
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


@covering(1)
@pytest.mark.parametrize(
    ("fraction", "keep", "layer"),
    [(0.4, 0.4, 2), (0.19, 0.3, 0), (0.0, 0.05, 0), (0.8, 0.05, 4)],
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
        assert close(tiny.logits(output)[b], logits)
        assert [n[b] for n in run.report.kv_tokens_per_layer] == expected.kv_lengths
        assert [n[b] for n in run.report.visual_tokens_per_layer] == list(map(len, expected.kept))
        for stage in run.report.stages:
            assert stage.kept[b] == sorted(expected.kept[-1])
    assert [stage.layer for stage in run.report.stages] == [layer]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_is_the_untouched_model(attention):
    model, inputs = tiny.shared("llama", attention), tiny.batch(tiny.RAGGED)
    untouched = tiny.generate(model, inputs, 4)
    for threshold in (None, 1.0):
        with trim(model, sgl(0.4, 1.0, threshold)):
            output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
            if threshold is None:
                assert torch.equal(tiny.logits(tiny.generate(model, inputs, 4)), tiny.logits(untouched))
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
            assert close(output.sequences_scores[row], score)
        else:
            assert close(tiny.logits(output)[row], expected)
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
            cached = tiny.generate(model, inputs, 4)
            repeated = tiny.generate(model, inputs, 4, use_cache=False)
        assert torch.equal(cached.sequences, repeated.sequences)
        assert close(tiny.logits(cached), tiny.logits(repeated))
        assert run.reports[0].stages == run.reports[1].stages


def test_prompt_lookup_decoding_gives_the_same_answer():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, sgl()) as run:
        first = tiny.generate(model, inputs, 16)
        looked_up = tiny.generate(model, inputs, 16, prompt_lookup_num_tokens=3, max_matching_ngram_size=1)
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
    with trim(model, compose(sgl(), VTA("linear", 6, 0.0, interval=1))) as run:
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
        tiny.generate(first, inputs, 2)
        tiny.generate(second, inputs, 2)
    assert one.report.stages == two.report.stages


def test_nothing_stays_on_either_model():
    model, guide, inputs = tiny.build(), guides.build(), tiny.batch(tiny.RAGGED)
    for used in (model, guide):
        tiny.generate(used, inputs, 3)
    before = fingerprint(model), fingerprint(guide)
    expected = tiny.generate(model, inputs, 3)
    for threshold in (0.0, 1.0):
        with trim(model, sgl(threshold=threshold, guide=guide)):
            plain(model, inputs, 3)
            # Between its answers the guide is as it was.
            assert fingerprint(guide) == before[1]
    assert (fingerprint(model), fingerprint(guide)) == before
    assert torch.equal(tiny.logits(tiny.generate(model, inputs, 3)), tiny.logits(expected))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["guide", "model"])
def test_after_an_error_the_next_call_is_as_any_other(error, where):
    model, guide, inputs = tiny.build(), guides.build(), tiny.batch(tiny.RAGGED)

    def fail(module, args):
        raise error

    with trim(model, sgl(guide=guide)) as run:
        expected = tiny.generate(model, inputs, 3)
        handle = (guide if where == "guide" else model).get_decoder().layers[1].register_forward_pre_hook(fail)
        with pytest.raises(error):
            tiny.generate(model, inputs, 3)
        handle.remove()
        again = tiny.generate(model, inputs, 3)
        with torch.no_grad(), pytest.raises(UnsupportedGenerationError, match="bare forward pass"):
            model(**inputs)
    assert torch.equal(tiny.logits(again), tiny.logits(expected))
    assert len(run.reports) == 2


def test_notation_names_the_guide():
    assert str(SGL(NamedModel("reference-small"), 0.2, 0.3)) == (
        "sgl:guide=reference-small,layer_fraction=0.2,keep=0.3,exit_threshold=None"
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
    method, model, inputs = SGL(NamedModel("small")), tiny.shared(), tiny.batch(tiny.RAGGED)
    for chosen in (method, method, compose(method, VTA())):
        with trim(model, chosen) as run:
            tiny.generate(model, inputs, 2)
    assert loaded == [("small", torch.float32, "cpu")]
    assert run.reports[0].method.startswith("sgl:guide=small,")
    assert copy.copy(method) == method == SGL(NamedModel("small"))
