"""Unsupported settings raise an error before any work, with an alternative."""

import copy

import pytest
import torch
import transformers

from tests import tiny
from tests.closeness import close
from tests.families.zoo import FAMILIES, shared
from vistrim import PVTP, ST3, FasterVLM, Uniform, UnsupportedGenerationError, UnsupportedModelError, trim
from vistrim.engine.releases import CACHE

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 32,
}


def test_text_only_model():
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    with pytest.raises(UnsupportedModelError, match=r"LlamaForCausalLM.*no placeholder tokens"):
        trim(model, ST3())


def test_something_that_is_no_transformers_model():
    with pytest.raises(UnsupportedModelError, match="Linear"):
        trim(torch.nn.Linear(2, 2), ST3())


def test_base_model_without_head():
    with pytest.raises(UnsupportedModelError, match="AutoModelForImageTextToText"):
        trim(tiny.build().model, ST3())


def test_unknown_vision_tower_is_refused_to_methods_that_read_it():
    config = tiny.config()
    config.vision_config = transformers.ViTConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    trim(model, ST3())
    with pytest.raises(UnsupportedModelError, match=r"fastervlm reads the vision tower.*fastv"):
        trim(model, FasterVLM())


def test_compiled_model():
    model = tiny.build()
    with pytest.raises(UnsupportedModelError, match="before compiling"):
        trim(torch.compile(model), ST3())
    model.compile()
    with pytest.raises(UnsupportedModelError, match="before compiling"):
        trim(model, ST3())


def test_parameters_that_do_not_fit_the_model():
    with pytest.raises(ValueError, match="5 decoder layers"):
        trim(tiny.build(), PVTP(start_layer=5))


def assistant():
    return tiny.build()


def guidance():
    processors = transformers.LogitsProcessorList()
    processors.append(transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor(2.0, tiny.build()))
    return processors


REFUSED = {
    "static cache": ({"cache_implementation": "static"}, "static"),
    "quantized cache": ({"cache_implementation": "quantized"}, "quantized"),
    "offloaded cache": ({"cache_implementation": "offloaded"}, "offloaded"),
    "chunked prefill": ({"prefill_chunk_size": 4}, "prefill_chunk_size"),
    "prompt lookup while annealing": ({"prompt_lookup_num_tokens": 3}, "PVTP"),
    "draft model": ({"assistant_model": assistant}, "prompt_lookup_num_tokens"),
    "early exit": ({"assistant_early_exit": 2}, "prompt_lookup_num_tokens"),
    "guidance": ({"guidance_scale": 2.0}, "guidance_scale"),
    "contrastive search": ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
    "dola": ({"dola_layers": "low"}, "dola_layers"),
    "no cache to anneal": ({"use_cache": False}, "PVTP"),
    "guidance by hand": ({"logits_processor": guidance}, "guidance_scale"),
    "custom loop": ({"custom_generate": lambda: None}, "custom_generate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_generation_modes(case):
    options, way_out = REFUSED[case]
    options = {k: v() if v in (assistant, guidance) else v for k, v in options.items()}
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, ST3()) as run:
        with pytest.raises(UnsupportedGenerationError, match=way_out):
            tiny.generate(model, inputs, **options)
        assert run.reports == []
        tiny.generate(model, inputs)


def test_setting_in_a_generation_config():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    asked = transformers.GenerationConfig(cache_implementation="static", max_new_tokens=2)
    with trim(model, ST3()):
        with pytest.raises(UnsupportedGenerationError, match="static"):
            model.generate(**inputs, generation_config=asked)
        ids = inputs.pop("input_ids")
        with pytest.raises(UnsupportedGenerationError, match="static"):
            model.generate(ids, asked, **inputs)
        inputs["input_ids"] = ids
        model.generation_config.prefill_chunk_size = 4
        with pytest.raises(UnsupportedGenerationError, match="chunked"):
            tiny.generate(model, inputs)


@pytest.mark.parametrize("method", [ST3(), Uniform()])
def test_cache_objects(method):
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    static = transformers.StaticCache(config=model.config.text_config, max_cache_len=64)
    offloaded = transformers.DynamicCache()
    offloaded.offloading = True
    with trim(model, method):
        for cache, name in ((static, "StaticLayer"), (offloaded, "offloaded")):
            with pytest.raises(UnsupportedGenerationError, match=name):
                tiny.generate(model, inputs, **{CACHE: cache})
            with pytest.raises(UnsupportedGenerationError, match=name):
                model(**inputs, **{CACHE: cache})
        with pytest.raises(UnsupportedGenerationError, match="tuple"):
            model(**inputs, **{CACHE: ((torch.zeros(1, 2, 3, 8),) * 2,)})


def test_attention_kernel_chosen_inside_the_context():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, ST3()):
        model.set_attn_implementation("flex_attention")
        for call in (model, model.generate):
            with pytest.raises(UnsupportedGenerationError, match="set_attn_implementation"):
                call(**inputs)
        model.set_attn_implementation("eager")
        tiny.generate(model, inputs)


def test_continuous_batching():
    model = tiny.build()
    with trim(model, ST3()), pytest.raises(UnsupportedGenerationError, match="continuous batching"):
        model.generate_batch([[1, 2, 3]])


def test_settings_that_ask_for_nothing_are_accepted():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, ST3()):
        tiny.generate(model, inputs, 2, penalty_alpha=0.0, guidance_scale=1.0, cache_implementation="dynamic")


def test_attention_mask_that_is_no_padding_mask():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with trim(model, ST3()), pytest.raises(UnsupportedGenerationError, match="padding masks"):
        model(**inputs)


def test_cropping_a_trimmed_cache_into_its_visual_tokens():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)):
        cache = model(**inputs, use_cache=True)[CACHE]
        last = model(input_ids=torch.tensor([[5]]), **{CACHE: cache}).logits
        # Generated text and the text behind the image can be taken back, and read again.
        cache.crop(-3)
        again = inputs["input_ids"][:, -2:]
        repeated = model(input_ids=torch.cat([again, torch.tensor([[5]])], 1), **{CACHE: cache}).logits
        assert close(repeated[:, -1], last[:, -1])
        with pytest.raises(UnsupportedGenerationError, match="cropped"):
            cache.crop(-10)
        # Refused before any layer was cropped.
        assert len({layer.get_seq_length() for layer in cache.layers}) == 1


def test_copy_of_a_model_that_is_being_trimmed():
    model = tiny.build()
    with trim(model, ST3()), pytest.raises(UnsupportedModelError, match="detach"):
        copy.deepcopy(model)
    copy.deepcopy(model)


@pytest.mark.parametrize("method", [ST3, None])
def test_something_that_is_no_method(method):
    with pytest.raises(TypeError, match="is no method"):
        trim(tiny.build(), method)


def test_wrapper_around_a_model():
    class Wrapper(torch.nn.Module):
        def get_base_model(self):
            return None

    with pytest.raises(UnsupportedModelError, match="get_base_model"):
        trim(Wrapper(), ST3())


def test_part_of_a_model_that_was_compiled():
    model = tiny.build()
    model.get_decoder().compile()
    with pytest.raises(UnsupportedModelError, match="before compiling"):
        trim(model, ST3())


def test_a_model_that_encodes_images_in_a_way_of_its_own():
    class OwnWay(transformers.models.llava.modeling_llava.LlavaModel):
        def forward(self, input_ids=None, pixel_values=None, mm_encoder_outputs=None, **kwargs):
            features = super().get_image_features(pixel_values, return_dict=True)
            embeddings = self.get_input_embeddings()(input_ids)
            places = input_ids == self.config.image_token_id
            embeddings[places] = torch.cat(list(features.pooler_output))
            kwargs["inputs_embeds"] = embeddings
            return self.language_model(**kwargs)

    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    model.model.__class__ = OwnWay
    with trim(model, ST3()), pytest.raises(UnsupportedGenerationError, match="does not encode its images"):
        model(**inputs)


def test_balancing_loss_of_experts():
    family = FAMILIES["qwen3_vl_moe"]
    model, inputs = shared("qwen3_vl_moe"), family.batch([family.sample()])
    inputs["labels"] = inputs["input_ids"]
    with trim(model, ST3()), pytest.raises(UnsupportedGenerationError, match="leave out `output_router_logits`"):
        model(**inputs, output_router_logits=True)


def test_attention_whose_source_is_not_to_be_had():
    model = tiny.build()
    made = {}
    exec(
        "class Attention(base):\n    def forward(self, *a, **k):\n        return None", {"base": torch.nn.Module}, made
    )
    attention = made["Attention"]()
    attention.config = model.config.text_config
    model.get_decoder().layers[1].self_attn = attention
    with pytest.raises(UnsupportedModelError, match="layer 1 of LlavaForConditionalGeneration"):
        trim(model, ST3())


def test_attention_that_extends_that_of_transformers():
    class Attention(transformers.models.llama.modeling_llama.LlamaAttention):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    model = tiny.build()
    for layer in model.get_decoder().layers:
        layer.self_attn.__class__ = Attention
    inputs = tiny.batch([tiny.sample(1, 9)])
    with trim(model, ST3(1, 2, 0.5)) as run:
        tiny.generate(model, inputs, 2)
    assert run.report.prefill_flops < run.report.prefill_flops_full
