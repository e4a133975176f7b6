"""Vision-tower rows, raters, looking ahead, merged tokens and renumbered positions, in every way to generate.

What these do for a prompt is compared with an independent computation elsewhere; here each way to generate has to agree
with the plain one, sample by sample.
"""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.families.depth import slow_beside
from tests.methods.dyvte_weights import saved
from tests.methods.quecc_weights import random_part
from vistrim import (
    DART,
    VTA,
    VTCCLS,
    VTW,
    YOPO,
    Downsample,
    DyVTE,
    FasterVLM,
    FastV,
    PSigmoid,
    PyramidDrop,
    QueCC,
    SparseVLM,
    UnsupportedGenerationError,
    UnsupportedModelError,
    VisionZip,
    VisPruner,
    compose,
    trim,
)
from vistrim.engine.releases import CACHE
from vistrim.methods.base.keep_rates import KeepRates

STEPS = 3
HEADS = ((True,) * 4, (False, True, True, False), (False,) * 4, (True, False) * 2, (True,) * 4)
METHODS = {
    "fastervlm": FasterVLM(5),
    "vispruner": VisPruner(7, positions="original"),
    "fastv": FastV(2, 0.4, "renumber"),
    "pyramiddrop": PyramidDrop(),
    "sparsevlm": SparseVLM(layers=(0, 2), counts=(6, 2)),
    "sparsevlm-plus": SparseVLM(variant="plus", layers=(0, 2), counts=(6, 2)),
    "vtw": VTW(3, "renumber"),
    "dyvte": DyVTE(saved(2)),
    "quecc": QueCC(random_part()),
    "psigmoid": PSigmoid(mean_keep=0.55, kappa=1.5),
    "keep-rates-of-the-prompt": KeepRates((1, 0.8, 0.8, 0.3, 0), "prompt"),
    "yopo": YOPO(3, HEADS, 3, 0.5),
    "visionzip": VisionZip(4, 3),
    "dart": DART(8, 2, 2, 2),
    "downsample": Downsample(6),
    "composed": compose(FasterVLM(0.75), YOPO(3, HEADS, None, 0.5), SparseVLM(layers=(1,), counts=(4,))),
}


def every_fourth(first: int) -> pytest.MarkDecorator:
    """All methods, of which every run has each fourth one: all methods are in some way to generate."""
    quick = list(METHODS)[first::4]
    return pytest.mark.parametrize("name", slow_beside(quick, METHODS))


FOURTHS = [every_fourth(first) for first in range(4)]


def read_out(model, method, sample, answer):
    """Logits of every step when an answer is read out token by token, with a loop written by hand."""
    with torch.no_grad(), trim(model, method):
        output = model(**tiny.batch([sample]), use_cache=True)
        logits = [output.logits[0, -1]]
        for token in answer[:-1]:
            output = model(input_ids=torch.tensor([[token]]), **{CACHE: output[CACHE]})
            logits.append(output.logits[0, -1])
    return torch.stack(logits)


def answers(output, inputs):
    return output.sequences[:, inputs["input_ids"].shape[1] :].tolist()


@covering(1)
@FOURTHS[3]
@pytest.mark.parametrize(
    ("samples", "attention"),
    [
        pytest.param(tiny.RAGGED, "sdpa", id="ragged-sdpa"),
        pytest.param(tiny.SAME_LENGTH, "eager", id="same-eager"),
        pytest.param(tiny.RAGGED, "eager", id="ragged-eager", marks=pytest.mark.slow),
        pytest.param(tiny.SAME_LENGTH, "sdpa", id="same-sdpa", marks=pytest.mark.slow),
    ],
)
def test_batch_equals_its_samples_alone(name, samples, attention):
    model, inputs = tiny.shared("llama", attention), tiny.batch(samples)
    with trim(model, METHODS[name]) as run:
        output = tiny.generate(model, inputs, STEPS)
    for b, sample in enumerate(samples):
        expected = read_out(model, METHODS[name], sample, answers(output, inputs)[b])
        assert close(tiny.logits(output)[b], expected)
    assert run.report.kv_bytes < run.report.kv_bytes_full


@covering(1)
@FOURTHS[1]
@pytest.mark.parametrize("options", [{"do_sample": True, "num_return_sequences": 2}, {"num_beams": 3}])
def test_several_rows_for_each_sample(name, options):
    """The tower encodes the images once for all of them."""
    model, samples = tiny.shared(), tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    torch.manual_seed(2)
    with trim(model, METHODS[name]) as run:
        output = tiny.generate(model, inputs, STEPS, output_scores=True, **options)
    copies = options.get("num_return_sequences", 1)
    for row, answer in enumerate(answers(output, inputs)):
        expected = read_out(model, METHODS[name], samples[row // copies], answer)
        if "num_beams" in options:
            scores = expected.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum() / len(answer)
            assert close(output.sequences_scores[row], scores)
        else:
            assert close(tiny.logits(output)[row], expected)
    for stage in run.report.stages:
        rows = options.get("num_beams", copies)
        assert all(stage.kept[b] == stage.kept[b - b % rows] for b in range(2 * rows))


@FOURTHS[0]
def test_without_cache_equals_with_cache(name):
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, METHODS[name]) as run:
        cached = tiny.generate(model, inputs, STEPS)
        repeated = tiny.generate(model, inputs, STEPS, use_cache=False)
    assert torch.equal(cached.sequences, repeated.sequences)
    assert close(tiny.logits(cached), tiny.logits(repeated))
    assert run.reports[0].stages == run.reports[1].stages


@FOURTHS[2]
def test_prompt_lookup_decoding_gives_the_same_answer(name):
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, METHODS[name]) as run:
        plain = tiny.generate(model, inputs, 10)
        looked_up = tiny.generate(model, inputs, 10, prompt_lookup_num_tokens=3, max_matching_ngram_size=1)
    assert torch.equal(plain.sequences, looked_up.sequences)
    assert close(tiny.logits(plain), tiny.logits(looked_up))
    assert run.reports[0].stages == run.reports[1].stages
    assert run.reports[0].kv_tokens_per_layer == run.reports[1].kv_tokens_per_layer


@FOURTHS[3]
def test_right_padding_and_embeddings(name):
    model, samples = tiny.shared(), tiny.RAGGED
    right = tiny.batch(samples, side="right")
    with torch.no_grad(), trim(model, METHODS[name]) as run:
        logits = model(**right).logits
        embedded = dict(right, inputs_embeds=model.get_input_embeddings()(right["input_ids"]))
        del embedded["input_ids"]
        assert torch.equal(model(**embedded).logits, logits)
    assert run.reports[0].stages == run.reports[1].stages
    for b, sample in enumerate(samples):
        expected = read_out(model, METHODS[name], sample, [0])[0]
        assert close(logits[b, len(sample.ids) - 1], expected)


@FOURTHS[1]
def test_labels_do_not_change_the_choice(name):
    """Tokens after the prompt neither rank nor rate."""
    model, sample, answer = tiny.shared(), tiny.sample(1, 12), 4
    inputs = tiny.batch([sample])
    labels = inputs["input_ids"].clone()
    labels[:, :-answer] = -100
    asked = tiny.batch([tiny.Sample(sample.ids[:-answer], sample.pixels)])
    with torch.no_grad(), trim(model, METHODS[name]) as run:
        output = model(**inputs, labels=labels)
        prompt = model(**asked)
    assert run.reports[0].stages == run.reports[1].stages
    assert close(output.logits[0, -answer - 1], prompt.logits[0, -1])


@covering(1)
@FOURTHS[1]
@pytest.mark.parametrize("images", [0, 1], ids=["text", "new-image"])
def test_second_turn_of_a_batch_equals_its_samples_alone(name, images):
    model, samples = tiny.shared(), tiny.RAGGED[:2]
    more = [tiny.sample(images, 5, seed=s) for s in (7, 8)]

    def talk(rows):
        inputs = tiny.batch([samples[i] for i in rows])
        with trim(model, METHODS[name]) as run:
            first = tiny.generate(model, inputs, STEPS)
            pixels = torch.cat([more[i].pixels for i in rows]) if images else None
            turn = tiny.follow_up(first, inputs, torch.tensor([more[i].ids for i in rows]), pixels)
            second = tiny.generate(model, turn, STEPS)
        return tiny.logits(second), run.report.kv_tokens_per_layer

    together, lengths = talk([0, 1])
    for b in range(2):
        alone, its_lengths = talk([b])
        assert close(together[b], alone[0])
        assert [[n[b]] for n in lengths] == its_lengths


@FOURTHS[2]
def test_sliding_window(name):
    """A window shorter than the prompt: padded, alone and without a cache."""
    model = tiny.build("mistral", sliding_window=24)
    samples = tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    with trim(model, METHODS[name]):
        output = tiny.generate(model, inputs, STEPS)
        repeated = tiny.generate(model, inputs, STEPS, use_cache=False)
    assert close(tiny.logits(output), tiny.logits(repeated))
    for b, sample in enumerate(samples):
        expected = read_out(model, METHODS[name], sample, answers(output, inputs)[b])
        assert close(tiny.logits(output)[b], expected)


@FOURTHS[3]
def test_half_precision(name):
    model, inputs = tiny.build().to(torch.bfloat16), tiny.batch(tiny.RAGGED)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with trim(model, METHODS[name]) as run:
        assert torch.isfinite(tiny.logits(tiny.generate(model, inputs, STEPS))).all()
    assert run.report.kv_bytes < run.report.kv_bytes_full


def test_threads_encode_at_the_same_time():
    model = tiny.shared()
    samples = [tiny.sample(1 + i % 2, 6 + i, seed=i) for i in range(4)]
    with trim(model, METHODS["composed"]):
        alone = [tiny.generate(model, tiny.batch([s]), STEPS) for s in samples]
        together = tiny.in_threads(lambda s: tiny.generate(model, tiny.batch([s]), STEPS), samples)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(tiny.logits(a), tiny.logits(b))


def test_leaving_restores_the_vision_tower():
    model = tiny.build()
    # transformers puts hooks of its own into a tower that is used for the first time.
    tiny.generate(model, tiny.batch(tiny.RAGGED), 2)
    modules = list(model.modules())
    before = [(vars(m).get("config"), len(m._forward_pre_hooks), len(m._forward_hooks)) for m in modules]
    with trim(model, VTCCLS(5, first_layer=0)):
        tiny.generate(model, tiny.batch(tiny.RAGGED), 2)
    assert before == [(vars(m).get("config"), len(m._forward_pre_hooks), len(m._forward_hooks)) for m in modules]


def test_images_that_were_encoded_before_cannot_be_ranked():
    model, sample = tiny.shared(), tiny.sample(1, 9)
    inputs = tiny.batch([sample])
    features = model.get_image_features(inputs.pop("pixel_values"), return_dict=True)
    with torch.no_grad(), trim(model, FasterVLM(5)) as run:
        with pytest.raises(UnsupportedGenerationError, match="pass `pixel_values`"):
            model(**inputs, mm_encoder_outputs={"image": features})
        # Encoding by hand inside the context leaves nothing behind for the next call.
        model.get_image_features(sample.pixels, return_dict=True)
        with pytest.raises(UnsupportedGenerationError, match="pass `pixel_values`"):
            model(**inputs, mm_encoder_outputs={"image": features})
        tiny.generate(model, tiny.batch([sample]), 2)
    assert run.report.visual_tokens_per_layer[0] == [5]


def test_a_custom_gap_in_the_positions_is_closed():
    """Renumbered tokens are consecutive, and so are the tokens after them."""
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    n = inputs["input_ids"].shape[1]
    plain, gap = torch.arange(n)[None], torch.arange(n)[None]
    gap[:, -3:] += 100
    logits = []
    with torch.no_grad(), trim(model, FasterVLM(5)):
        for positions in (plain, gap):
            output = model(**inputs, position_ids=positions, use_cache=True)
            next_one = positions[:, -1:] + 1
            output = model(input_ids=torch.tensor([[7]]), position_ids=next_one, **{CACHE: output[CACHE]})
            logits.append(output.logits)
    assert close(logits[0], logits[1])


@covering(1)
@FOURTHS[0]
@pytest.mark.parametrize("use_cache", [True, False])
def test_model_run_from_inside_a_generation(name, use_cache):
    """A forward pass of a logits processor encodes images of its own."""
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    inner = tiny.batch([tiny.sample(2, 7, seed=5)])
    found = []

    def asks(ids, scores):
        found.append(model(**inner, use_cache=True).logits)
        return scores

    with torch.no_grad(), trim(model, METHODS[name]):
        plain = tiny.generate(model, inputs, STEPS, use_cache=use_cache)
        expected = model(**inner, use_cache=True).logits
        asked = tiny.generate(model, inputs, STEPS, logits_processor=[asks], use_cache=use_cache)
    assert torch.equal(tiny.logits(plain), tiny.logits(asked))
    assert all(torch.equal(logits, expected) for logits in found)


def test_other_features_than_the_config_names_are_refused():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with torch.no_grad(), trim(model, FasterVLM(5)):
        with pytest.raises(UnsupportedGenerationError, match="leave out `vision_feature_layer`"):
            tiny.generate(model, inputs, 2, vision_feature_layer=-1)
        with pytest.raises(UnsupportedGenerationError, match=r"set model\.config\.vision_feature_layer"):
            model(**inputs, vision_feature_layer=-1)
        tiny.generate(model, inputs, 2, vision_feature_layer=-2)
    with trim(model, FastV()):
        tiny.generate(model, inputs, 2, vision_feature_layer=-1)


def test_towers_that_do_not_fit_are_refused():
    model = tiny.shared()
    with pytest.raises(ValueError, match="choose first_layer between 0 and 0"):
        trim(model, VTCCLS(5))
    model = tiny.build()
    model.config.vision_feature_layer = 0
    for method in (FasterVLM(5), VisPruner(5), VTCCLS(5), VTCCLS(5, first_layer=0)):
        with pytest.raises(UnsupportedModelError, match="does not have"):
            trim(model, method)
    trim(model, FastV())


def test_a_masked_part_of_an_image_and_the_last_token_are_not_ranked():
    """Scores belong to the right patches when some of an image cannot be removed."""
    model, sample = tiny.shared(), tiny.sample(2, 9)
    inputs = tiny.batch([sample, tiny.sample(1, 9)])
    first = (inputs["input_ids"][0] == tiny.IMAGE).nonzero()[0, 0]
    inputs["attention_mask"][0, first : first + 6] = 0
    with torch.no_grad():
        tower = tiny.shared("llama", "eager").model.vision_tower(sample.pixels, output_attentions=True)
    ranked = tower.attentions[0][:, :, 0, 1:].mean(1)
    with trim(model, FasterVLM(4)) as run:
        tiny.generate(model, inputs, 2)
    image_1 = ranked[0, 6:].argsort(descending=True)[:4].sort().values
    image_2 = ranked[1].argsort(descending=True)[:4].sort().values + tiny.TOKENS_PER_IMAGE - 6
    assert run.report.stages[0].kept[0] == torch.cat([image_1, image_2]).tolist()


def test_annealing_behind_another_ranking():
    """Layer 0 of the cache is ranked by the last prompt token, although other words rank in prefill."""
    model, samples = tiny.shared(), tiny.RAGGED
    method = compose(SparseVLM(layers=(0, 2), counts=(8, 4)), VTA("linear", 6, 0.0, interval=1))
    inputs = tiny.batch(samples)
    with trim(model, method) as run:
        output = tiny.generate(model, inputs)
    for b, sample in enumerate(samples):
        expected = read_out(model, method, sample, answers(output, inputs)[b])
        assert close(tiny.logits(output)[b], expected)
    assert run.report.kv_tokens_per_layer == [[s.text + 7 for s in samples]] * tiny.DEPTH
