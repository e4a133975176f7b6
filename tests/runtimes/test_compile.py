"""torch.compile: refused where graphs would have to follow token counts, and right where there are none."""

import pytest
import torch
from transformers import CompileConfig, GenerationConfig

from tests import tiny
from tests.closeness import close
from tests.engine.test_lifecycle import fingerprint
from vistrim import FastV, UnsupportedGenerationError, UnsupportedModelError, trim

METHOD = FastV(1, 0.5)
REFUSAL = "torch.compile.*before compiling"


@pytest.fixture(autouse=True)
def forgotten():
    yield
    torch.compiler.reset()


@pytest.fixture
def model():
    return tiny.build()


@pytest.fixture(scope="module")
def inputs():
    return tiny.batch([tiny.sample(1, 9)])


def compiled(function):
    """Traced and guarded as ever, but without a compiler behind."""
    return torch.compile(function, backend="eager")


def the_model(model):
    model.compile(backend="eager")


def its_forward(model):
    model.forward = compiled(model.forward)


def the_base(model):
    model.base_model.compile(backend="eager")


def the_decoder(model):
    model.get_decoder().compile(backend="eager")


def forward_of_the_decoder(model):
    decoder = model.get_decoder()
    decoder.forward = compiled(decoder.forward)


def a_layer(model):
    model.get_decoder().layers[2].compile(backend="eager")


def every_layer(model):
    """As regional compilation does."""
    layers = model.get_decoder().layers
    for i, layer in enumerate(layers):
        layers[i] = compiled(layer)


def an_attention(model):
    model.get_decoder().layers[2].self_attn.compile(backend="eager")


PARTS = [
    the_model,
    its_forward,
    the_base,
    the_decoder,
    forward_of_the_decoder,
    a_layer,
    every_layer,
    an_attention,
]


@pytest.mark.parametrize("compile_part", PARTS)
def test_compiled_before(compile_part, model):
    compile_part(model)
    with pytest.raises(UnsupportedModelError, match="before compiling"):
        trim(model, METHOD)


@pytest.mark.parametrize("compile_part", PARTS)
def test_compiled_while_it_is_trimmed(compile_part, model, inputs):
    with torch.no_grad(), trim(model, METHOD) as run:
        compile_part(model)
        for call in (model, model.generate):
            with pytest.raises(UnsupportedGenerationError, match=REFUSAL):
                call(**inputs)
        assert run.reports == []


@pytest.mark.slow
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_compiled_twin_of_a_model_that_is_trimmed(used, model, inputs):
    """Also one whose graphs were made before, without hooks. Its `generate` is the model's own, and not compiled."""
    twin = compiled(model)
    with torch.no_grad():
        untouched = twin(**inputs).logits if used else model(**inputs).logits
        with trim(model, METHOD) as run:
            with pytest.raises(UnsupportedGenerationError, match=REFUSAL):
                twin(**inputs)
            expected = tiny.logits(tiny.generate(model, inputs, 3))
            assert torch.equal(tiny.logits(tiny.generate(twin, inputs, 3)), expected)
            assert len(run.reports) == 2
        assert close(twin(**inputs).logits, untouched)


def test_a_function_that_calls_the_model(model, inputs):
    @compiled
    def step():
        return model(**inputs).logits.argmax(-1)

    with torch.no_grad(), trim(model, METHOD), pytest.raises(UnsupportedGenerationError, match=REFUSAL):
        step()


def test_parts_that_are_the_same_for_every_number_of_tokens(model, inputs):
    with trim(model, METHOD):
        expected = tiny.logits(tiny.generate(model, inputs))
    with trim(model, METHOD) as run:
        for layer in model.get_decoder().layers:
            layer.mlp.compile(backend="eager")
            layer.input_layernorm.forward = compiled(layer.input_layernorm.forward)
        found = tiny.logits(tiny.generate(model, inputs))
    assert close(found, expected)
    assert len(set(map(tuple, run.report.visual_tokens_per_layer))) == 2


def test_a_refused_call_leaves_nothing(model, inputs):
    tiny.generate(model, inputs, 2)
    before = fingerprint(model)
    decoder = model.get_decoder()
    with trim(model, METHOD):
        decoder.forward = compiled(decoder.forward)
        with pytest.raises(UnsupportedGenerationError, match=REFUSAL):
            model.generate(**inputs)
        del decoder.forward
        tiny.generate(model, inputs, 2)
    assert fingerprint(model) == before


STATIC = ({"cache_implementation": "static"}, {"generation_config": GenerationConfig(cache_implementation="static")})


@pytest.mark.parametrize("options", STATIC, ids=["argument", "config"])
def test_static_caches_for_which_generate_would_compile(options, model, inputs):
    with trim(model, METHOD), pytest.raises(UnsupportedGenerationError, match=r"static.*default dynamic cache"):
        model.generate(**inputs, compile_config=CompileConfig(), max_new_tokens=2, **options)


@pytest.mark.parametrize("where", ["argument", "model"])
@pytest.mark.parametrize("setting", ["compile_config", "disable_compile"])
def test_settings_that_change_nothing_with_a_dynamic_cache(where, setting, model, inputs):
    """Transformers itself compiles for static caches only, and says so."""
    value = CompileConfig(backend="eager") if setting == "compile_config" else True
    with trim(model, METHOD):
        expected = tiny.logits(tiny.generate(model, inputs, 4))
        if where == "model":
            setattr(model.generation_config, setting, value)
        found = tiny.generate(model, inputs, 4, **({setting: value} if where == "argument" else {}))
    assert torch.equal(tiny.logits(found), expected)
