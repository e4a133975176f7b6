"""Adapters of PEFT: the model is trimmed with its adapter, and the methods of the adapter still work."""

import copy

import peft
import pytest
import torch
from packaging.version import Version
from transformers.integrations.peft import MIN_PEFT_VERSION

from tests.closeness import close
from tests.covering import covering
from tests.engine.test_keep_everything import KeepEverything
from tests.engine.test_lifecycle import fingerprint
from tests.families.depth import slow_beside
from tests.families.later_turns import next_turn
from tests.families.zoo import FAMILIES, shared
from tests.runtimes import few_bits
from tests.tiny import generate, logits
from vistrim import ST3, YOPO, FastV, PyramidDrop, SparseVLM, UnsupportedModelError, trim

# Merged weights are rounded once more: untouched models differ by up to 1e-5 from their merged twins.
MERGED = 1e-4
STEPS = 3
NAMES = ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl"]
METHODS = {
    "st3": ST3(1, 1, 0.3, "cosine", 7, 0.1, interval=1),
    "pyramiddrop": PyramidDrop(layers=(1, 2, 3), keep=(0.6, 0.4, 0.2), positions="original"),
    "sparsevlm": SparseVLM(layers=(0, 2), counts=(6, 2), positions="original"),
}
TEXT_ATTENTION = r".*(language_model|text_model).*\.(q_proj|k_proj)"
ADAPTERS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=TEXT_ATTENTION, init_lora_weights=False),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=TEXT_ATTENTION, init_lora_weights=False, use_dora=True),
    "causal-lm": lambda: peft.LoraConfig(
        r=4, target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    ),
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj"], feedforward_modules=[], init_ia3_weights=False, task_type="CAUSAL_LM"
    ),
}
"""Their random weights change the model a lot."""


def adapted(name, kind="lora", seed=5):
    base = FAMILIES[name].build()
    torch.manual_seed(seed)
    return strengthened(peft.get_peft_model(base, ADAPTERS[kind]()).eval())


def strengthened(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(1.5)
            elif "ia3_" in name:
                parameter.copy_(1 + 0.5 * torch.randn_like(parameter))
    return model


def prompts(family):
    return family.batch([family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)])


def trimmed(model, inputs, method, call=None, **options):
    with trim(model, method) as run:
        found = logits(generate(call or model, inputs, STEPS, **options))
    return found, run.report.stages


def assert_equal(found, expected):
    assert close(found[0], expected[0], MERGED)
    assert found[1] == expected[1]


@covering(1)
@pytest.mark.parametrize("name", slow_beside(["llava", "qwen3_vl"], NAMES))
@pytest.mark.parametrize("kind", ADAPTERS)
def test_it_equals_the_merged_model(name, kind):
    model, inputs = adapted(name, kind), prompts(FAMILIES[name])
    merged = copy.deepcopy(model).merge_and_unload()
    for method in METHODS.values():
        found = trimmed(model, inputs, method)
        assert_equal(found, trimmed(merged, inputs, method))
        # Another choice than without the adapter.
        assert found[1] != trimmed(shared(name), inputs, method)[1]


@covering(1)
@pytest.mark.parametrize("name", slow_beside(["llava", "qwen3_vl"], NAMES))
@pytest.mark.parametrize("kind", ["lora", "causal-lm"])
def test_keeping_everything_changes_no_bit(name, kind):
    model, inputs = adapted(name, kind), prompts(FAMILIES[name])
    untouched = logits(generate(model, inputs, STEPS))
    before = fingerprint(model)
    with trim(model, KeepEverything()):
        assert torch.equal(logits(generate(model, inputs, STEPS)), untouched)
    after = fingerprint(model)
    # Where the places of the last prompt ended, which the stock model notes.
    own = {key for key in before if key[1] == "rope_deltas"}
    assert {key for key in before | after if before.get(key) != after.get(key)} <= own
    assert torch.equal(logits(generate(model, inputs, STEPS)), untouched)


@pytest.mark.parametrize("kind", ["lora", "causal-lm"])
def test_a_bare_forward_pass(kind):
    """With labels, which give the end of the prompt."""
    family, model = FAMILIES["llava"], adapted("llava", kind)
    inputs = family.batch([family.sample(1, 12)])
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    merged = copy.deepcopy(model).merge_and_unload()
    found = []
    for m in (model, merged):
        with torch.no_grad(), trim(m, METHODS["st3"]) as run:
            output = m(**inputs, labels=labels)
        found.append((output.logits, output.loss, run.report.stages))
    assert close(found[0][0], found[1][0], MERGED)
    assert close(found[0][1], found[1][1])
    assert found[0][2] == found[1][2] != []


@pytest.mark.parametrize("kind", ["lora", "causal-lm"])
@pytest.mark.parametrize("way", ["through the adapter", "inside"])
def test_it_may_be_called_either_way(kind, way):
    model, inputs = adapted("llava", kind), prompts(FAMILIES["llava"])
    given, called = (model, model.get_base_model())[:: 1 if way == "inside" else -1]
    assert_equal(trimmed(given, inputs, METHODS["st3"], called), trimmed(model, inputs, METHODS["st3"]))


def test_two_turns_and_beams():
    family, model = FAMILIES["qwen2_5_vl"], adapted("qwen2_5_vl", "causal-lm")
    merged, sample, more = copy.deepcopy(model).merge_and_unload(), family.sample(1, 9), family.sample(1, 6, seed=3)
    found = []
    for m in (model, merged):
        inputs = family.batch([sample])
        with torch.no_grad(), trim(m, METHODS["st3"]):
            first = generate(m, inputs, STEPS)
            turn = next_turn(family, merged, inputs, first, [sample], [more])
            second = generate(m, turn, STEPS)
            beams = generate(m, inputs, STEPS, num_beams=2, output_scores=True).sequences_scores
        found.append(torch.cat([logits(first).flatten(), logits(second).flatten(), beams]))
    assert close(found[0], found[1], MERGED)


def with_two_adapters():
    model = adapted("llava")
    torch.manual_seed(6)
    model.add_adapter("other", ADAPTERS["lora"]())
    return strengthened(model)


@pytest.mark.parametrize("method", slow_beside(["st3", "sparsevlm"], METHODS))
def test_adapters_that_are_switched_inside(method):
    model, inputs = with_two_adapters(), prompts(FAMILIES["llava"])
    expected = {}
    for name in ("default", "other"):
        alone = copy.deepcopy(model)
        alone.set_adapter(name)
        expected[name] = trimmed(alone.merge_and_unload(), inputs, METHODS[method])
    expected["none"] = trimmed(shared("llava"), inputs, METHODS[method])
    with trim(model, METHODS[method]) as run:

        def now():
            return logits(generate(model, inputs, STEPS)), run.report.stages

        assert_equal(now(), expected["default"])
        model.set_adapter("other")
        assert_equal(now(), expected["other"])
        with model.disable_adapter():
            assert_equal(now(), expected["none"])
        model.merge_adapter()
        assert_equal(now(), expected["other"])
        model.unmerge_adapter()
        model.set_adapter("default")
        assert_equal(now(), expected["default"])


def test_a_batch_of_several_adapters():
    family, model = FAMILIES["llava"], with_two_adapters()
    samples = [family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(1, 7, seed=2)]
    names, found = ["other", "__base__", "default"], []
    for name, sample in zip(names, samples, strict=True):
        with trim(model, METHODS["pyramiddrop"]):
            found.append(logits(generate(model, family.batch([sample]), STEPS, adapter_names=[name])))
    together, _ = trimmed(model, family.batch(samples), METHODS["pyramiddrop"], adapter_names=names)
    assert close(together, torch.cat(found))


@pytest.mark.skipif(
    Version(peft.__version__) < Version(MIN_PEFT_VERSION), reason=f"transformers asks for peft {MIN_PEFT_VERSION}"
)
def test_an_adapter_that_transformers_itself_has_put_in():
    model, inputs = FAMILIES["llava"].build(), prompts(FAMILIES["llava"])
    torch.manual_seed(5)
    model.add_adapter(ADAPTERS["lora"]())
    strengthened(model)
    for method in METHODS.values():
        assert_equal(trimmed(model, inputs, method), trimmed(adapted("llava"), inputs, method))


def test_an_adapter_that_is_put_in_while_the_model_is_trimmed():
    model, inputs = FAMILIES["llava"].build(), prompts(FAMILIES["llava"])
    expected = trimmed(adapted("llava"), inputs, METHODS["pyramiddrop"])
    with trim(model, METHODS["pyramiddrop"]) as run:
        torch.manual_seed(5)
        whole = strengthened(peft.get_peft_model(model, ADAPTERS["lora"]()).eval())
        assert_equal((logits(generate(whole, inputs, STEPS)), run.report.stages), expected)
        unloaded = whole.unload()
    found, expected = (logits(generate(m, inputs, 3)) for m in (unloaded, shared("llava")))
    assert close(found, expected)


def test_on_quantized_weights():
    """QLoRA."""
    base = few_bits.load("llava", "nf4")
    inputs = prompts(FAMILIES["llava"])
    without = trimmed(base, inputs, METHODS["pyramiddrop"])
    torch.manual_seed(5)
    model = strengthened(peft.get_peft_model(base, ADAPTERS["lora"]()).eval())
    untouched = logits(generate(model, inputs, STEPS))
    with trim(model, KeepEverything()):
        assert torch.equal(logits(generate(model, inputs, STEPS)), untouched)
    assert trimmed(model, inputs, METHODS["pyramiddrop"])[1] != without[1]
    with model.disable_adapter():
        assert_equal(trimmed(model, inputs, METHODS["pyramiddrop"]), without)


REFUSED = {
    "virtual tokens": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "PREFIX_TUNING": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "counted from the end": lambda: peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], alora_invocation_tokens=[5, 6]
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_adapters_that_do_more_are_refused(reason):
    config = FAMILIES["llava"].build()
    # Prompt learning looks for sizes in the text model's config.
    for name in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
        setattr(config.config, name, getattr(config.config.text_config, name))
    model = peft.get_peft_model(config, REFUSED[reason]())
    with pytest.raises(UnsupportedModelError, match=rf"{reason}.*get_base_model"):
        trim(model, FastV())


def test_an_adapter_with_a_network_of_its_own_is_refused():
    model = adapted("llava")
    model.peft_config["default"].peft_type = peft.PeftType.XLORA
    with pytest.raises(UnsupportedModelError, match=r"XLORA.*separate network"):
        trim(model, FastV())


def test_cuts_inside_adapted_layers_are_refused():
    heads = ((False, True, True, True),) * 4
    with pytest.raises(UnsupportedModelError, match=r"no plain q_proj.*heads=none"):
        trim(adapted("llava"), YOPO(None, heads, None, 1.0))
    trim(adapted("llava"), YOPO(3, None, None, 1.0))
