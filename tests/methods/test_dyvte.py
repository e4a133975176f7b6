"""DyVTE: every sample exits behind the first layer whose router says so, and is from there on as if by VTW."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.methods.dyvte_weights import WIDTH, random_routers, save, saved
from vistrim import VTW, DyVTE, FasterVLM, compose, trim
from vistrim.architectures import discover
from vistrim.core.costs import DecoderShape
from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.artifacts import save_part

SAMPLES = [*tiny.RAGGED, tiny.sample(1, 6, seed=5), tiny.sample(2, 9, seed=6)]
STEPS = 4


def alone(model, method, sample):
    with trim(model, method) as run:
        output = tiny.generate(model, tiny.batch([sample]), STEPS)
    return tiny.logits(output)[0], run.report


def votes(hidden, sample, seed):
    """First layer whose router votes for the exit, plus one, from the untouched model's hidden states."""
    routers = random_routers(seed)
    question = slice(len(sample.ids) - sample.ids[::-1].index(tiny.IMAGE), None)
    for layer in range(tiny.DEPTH - 1):
        words = hidden[layer + 1][0, question]
        mean = words[:-1].mean(0) if len(words) > 1 else words[0]
        inner = torch.nn.functional.gelu(routers[f"layers.{layer}.w1"] @ torch.cat([mean, words[-1]]))
        stay, leave = (routers[f"layers.{layer}.w2"] @ inner).tolist()
        if leave > stay:
            return layer + 1
    return None


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
def test_every_sample_of_a_batch_exits_at_its_own_layer(attention):
    model, found = tiny.shared("llama", attention), set()
    states = [model(**tiny.batch([sample]), output_hidden_states=True).hidden_states for sample in SAMPLES]
    for seed in range(6):
        with trim(model, DyVTE(saved(seed))) as run:
            output = tiny.generate(model, tiny.batch(SAMPLES), STEPS)
        expected = [votes(hidden, sample, seed) for hidden, sample in zip(states, SAMPLES, strict=True)]
        assert run.report.exit_layers == expected
        for b, sample in enumerate(SAMPLES):
            if expected[b] in found:
                continue
            found.add(expected[b])
            logits, report = alone(model, DyVTE(saved(seed)), sample)
            assert report.exit_layers == expected[b : b + 1]
            if tiny.logits(output)[b].argmax(-1).tolist() == logits.argmax(-1).tolist():
                assert close(tiny.logits(output)[b], logits)
    assert None in found
    assert len(found) >= 3


def test_from_its_exit_on_a_sample_is_as_if_withdrawn():
    model = tiny.shared()
    for sample in SAMPLES:
        logits, report = alone(model, DyVTE(saved(1)), sample)
        layer = report.exit_layers[0]
        if layer is None:
            expected = tiny.logits(tiny.generate(model, tiny.batch([sample]), STEPS))[0]
        else:
            expected, withdrawn = alone(model, VTW(layer), sample)
            assert report.kv_tokens_per_layer == withdrawn.kv_tokens_per_layer
            assert report.prefill_flops == withdrawn.prefill_flops
        assert torch.equal(logits, expected)


def test_routers_that_never_vote_change_no_bit(tmp_path):
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    silent = {name: torch.zeros_like(tensor) for name, tensor in random_routers().items()}
    untouched = tiny.generate(model, inputs)
    with trim(model, DyVTE(save(tmp_path / "silent.safetensors", silent))) as run:
        output = tiny.generate(model, inputs)
    assert torch.equal(tiny.logits(untouched), tiny.logits(output))
    assert run.report.exit_layers == [None] * 3


def test_the_routers_own_flops_are_in_the_report():
    model = tiny.shared()
    each = 2 * (2 * model.config.text_config.hidden_size * WIDTH + 2 * WIDTH)
    with trim(model, DyVTE(saved(1))) as run:
        tiny.generate(model, tiny.batch([*SAMPLES, tiny.sample(0, 9)]))
    exits = run.report.exit_layers
    # The last sample has no image.
    asked = [*(layer or tiny.DEPTH - 1 for layer in exits[:-1]), 0]
    assert run.report.method_flops == [each * n for n in asked]
    assert len(set(asked)) > 2


def test_behind_a_selector():
    model, inputs = tiny.shared(), tiny.batch(SAMPLES)
    with trim(model, compose(FasterVLM(0.5), DyVTE(saved(1)))) as run:
        tiny.generate(model, inputs)
    report = run.report
    assert report.visual_tokens_per_layer[0] == [sample.visual // 2 for sample in SAMPLES]
    assert any(report.exit_layers)
    assert any(report.method_flops)


def test_routers_of_other_models_are_refused(tmp_path):
    model, routers = tiny.shared(), random_routers()
    facts = discover(model).facts

    def refused(method, message):
        with pytest.raises(ValueError, match=message):
            trim(model, method)

    refused(DyVTE(), "none in vistrim/ beside its weights: make one with `vistrim calibrate dyvte`")
    refused(DyVTE(str(tmp_path / "no.safetensors")), "there is no file .*no.safetensors")
    deeper = DecoderShape(9, *list(vars(facts.decoder).values())[1:])
    for name, other, message in (
        (
            "name",
            ModelFacts("llava-7b", None, facts.decoder, facts.grid),
            "made for a model with .llava-7b.*this model",
        ),
        ("deep", ModelFacts("", None, deeper, facts.grid), "9 layers.*5 layers"),
    ):
        save_part(tmp_path / name, "dyvte", other, routers, {})
        refused(DyVTE(str(tmp_path / name)), message)
    save_part(tmp_path / "quecc", "quecc", facts, routers, {})
    refused(DyVTE(str(tmp_path / "quecc")), "is no file of dyvte")
    del routers["layers.2.w1"]
    refused(DyVTE(save(tmp_path / "part", routers)), "lack 'layers.2.w1'")
    (tmp_path / "text").write_text("no weights")
    refused(DyVTE(str(tmp_path / "text")), "cannot be read")


def test_a_replaced_file_is_read_again(tmp_path):
    model, path = tiny.shared(), tmp_path / "routers.safetensors"
    reports = []
    for seed in (1, 2):
        save(path, random_routers(seed))
        reports.append(alone(model, DyVTE(str(path)), SAMPLES[0])[1])
        assert reports[-1].exit_layers == alone(model, DyVTE(saved(seed)), SAMPLES[0])[1].exit_layers
