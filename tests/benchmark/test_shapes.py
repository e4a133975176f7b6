import pytest
import torch
from transformers import AutoModelForImageTextToText

import vistrim
from tests.benchmark.small_shapes import VISUAL, small
from tests.families.depth import slow_beside
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.shapes import SHAPES
from vistrim.errors import BenchmarkError

PUBLISHED = {
    "llava-1.5-7b": 7_063_427_072,
    "llava-1.5-13b": 13.4e9,
    "llava-next-7b": 7.06e9,
    "qwen2.5-vl-7b": 8_292_166_656,
    "internvl3-8b": 7.94e9,
    "smolvlm-2b": 2_246_784_880,
}
"""Parameters of the real checkpoints; the rounded ones are what is said of them, not counted."""
USUAL = {
    "llava-1.5-7b": 576,
    "llava-1.5-13b": 576,
    "llava-next-7b": 2880 + 48,
    "qwen2.5-vl-7b": 27 * 37,
    "internvl3-8b": 13 * 256,
    "smolvlm-2b": 13 * 81,
}


def config(name, layers=None, hidden=None, length=100):
    return SHAPES[name].config(layers, hidden, length)


@pytest.mark.parametrize("name", SHAPES)
def test_full_size_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config(name))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(PUBLISHED[name], rel=0.01)
    pictures = SHAPES[name].pictures
    assert pictures.usual * pictures.tokens == USUAL[name]


@pytest.mark.parametrize("attn", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", slow_beside(["llava-1.5-7b", "qwen2.5-vl-7b"], SHAPES))
def test_every_shape_generates_untouched_and_trimmed(name, attn):
    subject = make_subject(small(name, batch=2, attn=attn))
    model, inputs = subject.model, subject.inputs
    length = inputs["input_ids"].shape[1]
    assert not model.training
    assert {model.config.text_config._attn_implementation, model.config.vision_config._attn_implementation} == {attn}
    with torch.no_grad():
        assert model(**inputs, logits_to_keep=1).logits.isfinite().all()
    plain = model.generate(**inputs, max_new_tokens=2)
    with vistrim.trim(model, vistrim.PVTP()) as run:
        trimmed = model.generate(**inputs, max_new_tokens=2)
    assert plain.shape == trimmed.shape == (2, length + 2)
    assert run.report.visual_tokens == [subject.visual_tokens] * 2 == [VISUAL[name]] * 2
    assert run.report.prompt_tokens == [subject.visual_tokens + subject.text_tokens] * 2 == [length] * 2
    assert run.report.average_tokens < subject.visual_tokens
    assert run.report.vision_flops


@pytest.mark.parametrize("name", SHAPES)
def test_scaled_decoder_and_tower_keep_their_proportions(name):
    shape = SHAPES[name]
    full, half = config(name), config(name, shape.layers // 2, shape.hidden // 2)
    text, vision = half.text_config, half.vision_config
    assert (text.num_hidden_layers, text.hidden_size) == (shape.layers // 2, shape.hidden // 2)
    assert text.hidden_size // text.num_attention_heads == shape.head_dim
    assert text.intermediate_size / text.hidden_size == pytest.approx(
        full.text_config.intermediate_size / shape.hidden, rel=0.01
    )
    assert text.num_attention_heads % text.num_key_value_heads == 0
    assert vision.num_hidden_layers / full.vision_config.num_hidden_layers == pytest.approx(0.5, abs=0.03)
    assert vision.hidden_size / full.vision_config.hidden_size == pytest.approx(0.5, abs=0.05)
    shallow = config(name, 1).vision_config
    assert shallow.num_hidden_layers == 2
    assert shallow.hidden_size == full.vision_config.hidden_size


def test_qwens_tower_keeps_its_kinds_of_attention():
    assert config("qwen2.5-vl-7b", 14).vision_config.fullatt_block_indexes == [7, 15]
    assert config("qwen2.5-vl-7b", 2).vision_config.fullatt_block_indexes == [1]


def test_decoder_has_room_for_prompt_and_answer():
    assert config("llava-1.5-7b", length=9000).text_config.max_position_embeddings == 9000
    assert config("llava-1.5-7b", length=90).text_config.max_position_embeddings == 4096


@pytest.mark.parametrize(("hidden", "fix"), [(1000, "use 896 or 1024"), (40, "such as 32"), (8, "such as 16")])
def test_impossible_width_names_possible_ones(hidden, fix):
    with pytest.raises(BenchmarkError, match=fix):
        make_subject(small(hidden=hidden))
