"""Settings count as `generate` resolves them, not as they stand in one place."""

import pytest
import torch
import transformers

from tests import tiny
from tests.families.zoo import FAMILIES
from vistrim import PVTP, ST3, FastV, UnsupportedGenerationError, trim

KEEP = FastV(keep=1.0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["gemma3", "paligemma-gemma2", "llava"])
def test_cache_setting_of_a_checkpoint_that_transformers_drops(name, attention):
    family = FAMILIES[name]
    model, inputs = family.build(attention), family.batch([family.sample(1, 9)])
    model.generation_config.cache_implementation = "hybrid"
    cache = transformers.DynamicCache(config=model.config.get_text_config())
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with trim(model, KEEP):
        for extra in ({}, {"cache_implementation": None}, {"past_key_values": cache}):
            assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False, **extra), expected)


DROPPED = {
    "None in the call goes before the model's default": (
        {"prompt_lookup_num_tokens": 3, "guidance_scale": 2.0, "cache_implementation": "static"},
        {"prompt_lookup_num_tokens": None, "guidance_scale": None, "cache_implementation": None},
    ),
    "a value in the call goes before the model's default": (
        {"cache_implementation": "static", "guidance_scale": 2.0, "use_cache": False},
        {"cache_implementation": "dynamic", "guidance_scale": 1.0, "use_cache": True},
    ),
    "contrastive search is greedy search only": ({"penalty_alpha": 0.6, "top_k": 4}, {"do_sample": True}),
    "groups of beams need beams": ({"num_beam_groups": 2}, {"num_beams": 1}),
}


@pytest.mark.parametrize("case", DROPPED)
def test_settings_that_do_not_take_effect_are_not_refused(case):
    defaults, options = DROPPED[case]
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    model.generation_config.update(**defaults)
    with trim(model, ST3()) as run:
        tiny.generate(model, inputs, 2, **options)
    assert run.report.generated_tokens == 2


def test_a_kind_of_cache_is_of_no_account_without_a_cache():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, PVTP()):
        tiny.generate(model, inputs, 2, use_cache=False, cache_implementation="static")


def test_embeddings_always_have_a_cache():
    model, ids = tiny.build(), torch.tensor([[5, 6, 7]])
    embeddings = model.get_input_embeddings()(ids)
    with trim(model, ST3()) as run:
        model.generate(inputs_embeds=embeddings, use_cache=False, max_new_tokens=3, do_sample=False)
    assert len(run.report.kv_bytes_per_step) == 3


REFUSED = {
    "prefill_chunk_size": ({"prefill_chunk_size": 4}, {}),
    "cache_implementation": ({"cache_implementation": "static"}, {}),
    "PVTP": ({"prompt_lookup_num_tokens": 3}, {}),
    "guidance_scale": ({"guidance_scale": 2.0}, {}),
    "penalty_alpha": ({"penalty_alpha": 0.6, "top_k": 4}, {}),
    "num_beam_groups": ({"num_beam_groups": 2}, {"num_beams": 2}),
    "use_mtp": ({"use_mtp": True}, {}),
}


@pytest.mark.parametrize("way_out", REFUSED)
@pytest.mark.parametrize("where", ["model", "config", "call"])
def test_refused_wherever_it_is_set(way_out, where):
    settings, options = REFUSED[way_out]
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    if where == "model":
        model.generation_config.update(**settings)
    elif where == "config":
        options = {"generation_config": transformers.GenerationConfig(**settings, **options)}
    else:
        options = settings | options
    with trim(model, ST3()) as run, pytest.raises(UnsupportedGenerationError, match=way_out):
        model.generate(**inputs, max_new_tokens=2, **options)
    assert run.reports == []
