"""Unsupported uses of SGL raise an error before any work, with an alternative."""

import math

import pytest
import torch
import transformers
from transformers import GenerationConfig

from tests import guides, tiny
from tests.methods.test_sgl import sgl
from tests.methods.test_sgl_exits import Streamer
from vistrim import (
    PVTP,
    SGL,
    FasterVLM,
    LoadError,
    UnsupportedGenerationError,
    UnsupportedModelError,
    compose,
    get_method,
    trim,
)
from vistrim.engine.releases import CACHE
from vistrim.methods.base.named_model import NamedModel


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
        with pytest.raises(UnsupportedGenerationError, match=f"the whole conversation without `{CACHE}`"):
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
        places = torch.arange(inputs["input_ids"].shape[1])[None]
        with pytest.raises(UnsupportedGenerationError, match="leave out `position_ids`"):
            tiny.generate(model, inputs, position_ids=places)


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
        ({"max_time": 9.0}, "leave out `max_time`"),
        ({"watermarking_config": transformers.WatermarkingConfig()}, "leave out `watermarking_config`"),
        ({"generation_config": GenerationConfig(do_sample=True, max_new_tokens=8)}, "do_sample=False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_exclude_exits(options, way_out):
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, sgl(threshold=0.5)) as run:
        with pytest.raises(UnsupportedGenerationError, match=f"{way_out}.*exit_threshold"):
            model.generate(**inputs, **options)
        assert run.reports == []


MISFITS = {
    "model itself": (lambda: tiny.shared(), "the model itself"),
    "tokens": (lambda: misfit(patch_size=8), r"4 visual tokens per image, the large model 16"),
    "image size": (lambda: misfit(image_size=32, patch_size=8), r"32 pixels, the large model 16"),
    "image token": (lambda: misfit(image_token_index=151), r"image token id 151, the large model 150"),
    "vocabulary": (lambda: guides.build(vocab_size=170), r"170 tokens, the large model 160"),
    "class token": (
        lambda: misfit(vision_feature_select_strategy="full"),
        "17 visual tokens per image, the large model 16",
    ),
}


def misfit(**changes):
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
    with pytest.raises(UnsupportedModelError, match="cannot be a guide model: Linear"):
        trim(tiny.shared(), SGL(torch.nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="sgl:guide=reference-small"):
        trim(tiny.shared(), SGL())
    with pytest.raises(LoadError, match="no model directory"):
        trim(tiny.shared(), SGL(NamedModel("./nowhere")))


def test_a_guide_that_is_being_trimmed_is_refused():
    model, guide, inputs = tiny.build(), guides.build(), tiny.batch(tiny.RAGGED)
    run = trim(model, sgl(guide=guide))
    with trim(guide, PVTP()):
        with pytest.raises(UnsupportedModelError, match="the guide model is being trimmed"):
            trim(model, sgl(guide=guide))
        with pytest.raises(UnsupportedModelError, match="the guide model is being trimmed"):
            run.attach()
    with run:
        with trim(guide, PVTP()), pytest.raises(UnsupportedModelError, match="the guide model is being trimmed"):
            tiny.generate(model, inputs)
        tiny.generate(model, inputs)


def test_a_guide_in_training_mode_is_refused():
    guide = guides.build().train()
    with pytest.raises(UnsupportedModelError, match=r"call its eval\(\)"), trim(tiny.shared(), sgl(guide=guide)):
        pass
    with trim(tiny.shared(), sgl(guide=guide.eval())):
        tiny.generate(tiny.shared(), tiny.batch(tiny.RAGGED), 2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"guide": 3}, "guide=3: must be a model"),
        ({"guide": "reference-small"}, r"load one by its name with vistrim.load\(name\)"),
        ({"layer_fraction": 1.1}, "layer_fraction=1.1"),
        ({"layer_fraction": -0.1}, "between 0 and 1"),
        ({"keep": 1.5}, "keep=1.5"),
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
