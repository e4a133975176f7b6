from functools import cache

import pytest
import torch

import vistrim
from vistrim.benchmark import memory
from vistrim.benchmark.checkpoints import text_of
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.subject import Wanted
from vistrim.errors import BenchmarkError, LoadError, PromptError


@cache
def shared(**changes):
    """One subject for many tests, which must leave it as it is."""
    return make_subject(wanted(**changes))


def wanted(**changes):
    return Wanted(**({"model": "reference-small", "text_tokens": 40, "new_tokens": 4, "device": "cpu"} | changes))


@pytest.mark.parametrize("text", [33, 40, 64])
def test_prompts_have_exactly_the_requested_tokens(text):
    subject = shared(text_tokens=text, batch=2, new_tokens=12)
    ids = subject.inputs["input_ids"]
    placeholders = (ids == subject.model.config.image_token_id).sum(1).tolist()
    assert placeholders == [subject.visual_tokens] * 2
    assert subject.text_tokens == text == ids.shape[1] - subject.visual_tokens
    assert (subject.inputs["attention_mask"] == 1).all()
    assert not subject.inputs["pixel_values"][0].equal(subject.inputs["pixel_values"][1])


def test_generation_goes_on_behind_the_short_answer_to_noise():
    subject = shared(text_tokens=40, batch=2, new_tokens=12)
    with vistrim.trim(subject.model, vistrim.PVTP()) as run:
        output = subject.model.generate(**subject.inputs, max_new_tokens=12)
    assert output.shape[1] == subject.inputs["input_ids"].shape[1] + 12
    assert run.report.visual_tokens == [subject.visual_tokens] * 2


@pytest.mark.slow
def test_other_weights_are_distinguished():
    weights = shared().settings["weights"]
    assert weights != make_subject(wanted(model="reference")).settings["weights"]
    assert weights == make_subject(wanted()).settings["weights"]


def test_more_visual_tokens_are_more_images():
    one = shared()
    two = make_subject(wanted(visual_tokens=2 * one.visual_tokens))
    assert two.visual_tokens == 2 * one.visual_tokens
    assert len(two.inputs["pixel_values"]) == 2
    assert two.settings["images"].startswith("2 of")
    with pytest.raises(BenchmarkError, match=f"use {one.visual_tokens} or {2 * one.visual_tokens}"):
        make_subject(wanted(visual_tokens=one.visual_tokens + 1))


def test_weights_are_the_checkpoints():
    subject = make_subject(wanted(attn="eager", dtype="bfloat16"))
    model, _ = vistrim.load("reference-small", dtype="bfloat16", device="cpu")
    for (name, weight), other in zip(model.named_parameters(), subject.model.parameters(), strict=True):
        assert weight.equal(other), name
    assert subject.model.get_decoder().config._attn_implementation == "eager"
    assert subject.model.dtype == subject.inputs["pixel_values"].dtype == torch.bfloat16
    assert subject.settings["layers"] == model.config.text_config.num_hidden_layers


@pytest.mark.parametrize("option", ["layers", "hidden", "distinct_layers"])
def test_checkpoints_are_not_scaled(option):
    with pytest.raises(BenchmarkError, match=f"leave out --{option.replace('_', '-')}"):
        make_subject(wanted(**{option: 2}))


def test_too_short_a_text_names_the_shortest():
    with pytest.raises(BenchmarkError, match=r"use --text-tokens \d+ or more") as refused:
        make_subject(wanted(text_tokens=1))
    least = int(str(refused.value).split("--text-tokens ")[1].split()[0])
    assert make_subject(wanted(text_tokens=least)).text_tokens == least


def test_prompts_beyond_the_context_are_refused():
    with pytest.raises(PromptError, match="context"):
        make_subject(wanted(new_tokens=10_000))


def test_checkpoints_that_do_not_fit_are_refused_before_loading(monkeypatch):
    monkeypatch.setattr("vistrim.benchmark.checkpoints.load", lambda *args, **kwargs: pytest.fail("loaded"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 << 20)
    with pytest.raises(BenchmarkError, match=r"reference-small needs .* use --batch") as refused:
        make_subject(wanted(batch=16))
    fits = int(str(refused.value).rsplit("--batch ", 1)[1])
    monkeypatch.undo()
    assert make_subject(wanted(batch=fits)).inputs["input_ids"].shape[0] == fits


@pytest.mark.parametrize(("name", "error"), [("llava-1.5-7", BenchmarkError), ("./nowhere/at/all", LoadError)])
def test_unknown_models_are_refused(name, error):
    with pytest.raises(error):
        make_subject(Wanted(name))


@pytest.mark.parametrize("each", [1, 2, 3])
def test_texts_of_words_that_take_several_tokens(each):
    for tokens in range(6, 30):
        text = text_of(tokens, lambda text: 5 + text.count(" ") * each + text.count("."))
        assert 5 + text.count(" ") * each + text.count(".") == tokens


def test_a_tokenizer_that_does_not_stop_there_is_refused():
    with pytest.raises(BenchmarkError, match="use --text-tokens 8"):
        text_of(9, lambda text: 4 + 4 * len(text.split()))
