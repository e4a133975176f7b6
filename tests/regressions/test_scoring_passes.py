"""A pass that scores an answer chooses visual tokens as its generation did, or says that it cannot tell."""

from dataclasses import replace

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.families.zoo import FAMILIES, shared
from vistrim import PVTP, VTW, FastV, PyramidDrop, SparseVLM, Uniform, compose, trim

ANSWER = [21, 34, 55, 89, 13, 8]
K = len(ANSWER)
RANKING = {
    "fastv": FastV(),
    "pvtp": PVTP(),
    "pyramiddrop": PyramidDrop((1, 2, 3)),
    "sparsevlm": SparseVLM(layers=(1, 2, 3), counts=(0.5, 0.4, 0.3)),
    "composed": compose(Uniform(0.5), FastV()),
}
UNMOVED = {"keep everything": FastV(keep=1.0), "uniform": Uniform(0.5), "vtw": VTW(layer=3)}


def told(n, length):
    """Ways to say that an answer begins at place n: arguments of the pass, and those of `answer_from`."""
    return {
        "logits_to_keep": ({"logits_to_keep": length - n + 1}, None),
        "indices": ({"logits_to_keep": torch.arange(n - 1, length)}, None),
        "answer_from": ({}, n),
    }


def says(warnings):
    return [w for w in warnings if "`labels`" in w]


def scored(run, model, inputs, options, first=None):
    """Logits of the last K tokens and of the one before them."""
    if first is None:
        return model(**inputs, **options, use_cache=False).logits[:, -K - 1 :]
    with run.answer_from(first):
        return model(**inputs, **options, use_cache=False).logits[:, -K - 1 :]


@pytest.mark.parametrize("how", ["logits_to_keep", "indices", "answer_from"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_families_choose_as_with_labels(name, attention, how):
    family, model = FAMILIES[name], shared(name, attention)
    prompt = family.sample(1, 9)
    inputs = family.batch([replace(prompt, ids=[*prompt.ids, *ANSWER])])
    n, length = len(prompt.ids), len(prompt.ids) + K
    labels = inputs["input_ids"].clone()
    labels[:, :n] = -100
    options, first = told(n, length)[how]
    with torch.no_grad(), trim(model, FastV()) as run:
        expected = scored(run, model, inputs, {"labels": labels})
        found = scored(run, model, inputs, options, first)
        blind = scored(run, model, inputs, {})
    wanted, got, other = run.reports
    assert got.stages == wanted.stages
    assert close(found, expected)
    assert not says(wanted.warnings + got.warnings)
    assert other.stages == wanted.stages or not close(blind, expected)
    assert len(says(other.warnings)) == 1


@pytest.mark.parametrize("method", RANKING)
def test_methods_score_sampled_answers(method):
    model, sample = tiny.shared(), tiny.sample(1, 9)
    with torch.no_grad(), trim(model, RANKING[method]) as run:
        output = tiny.generate(model, tiny.batch([sample]), K)
        inputs = {"input_ids": output.sequences, "pixel_values": sample.pixels}
        inputs["attention_mask"] = torch.ones_like(output.sequences)
        sampled = tiny.logits(output)
        for options, first in told(len(sample.ids), output.sequences.shape[1]).values():
            found = scored(run, model, inputs, options, first)[:, :-1]
            assert close(found, sampled)
        assert not any(says(report.warnings) for report in run.reports)


def trainer_batch(prompts, answers):
    """Prompts padded on the left, answers on the right, as GRPO and online DPO have them."""
    width, longest = max(len(p.ids) for p in prompts), max(map(len, answers))
    rows, mask = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        left, right = width - len(prompt.ids), longest - len(answer)
        rows.append([tiny.PAD] * left + prompt.ids + answer + [tiny.PAD] * right)
        mask.append([0] * left + [1] * (len(prompt.ids) + len(answer)) + [0] * right)
    inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
    return inputs | {"pixel_values": torch.cat([p.pixels for p in prompts])}, width, longest


@pytest.mark.parametrize("method", RANKING)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_batch_of_a_trainer(attention, method):
    model = tiny.shared(attention=attention)
    answers = [ANSWER, ANSWER[:2], ANSWER[:4]]
    inputs, width, longest = trainer_batch(tiny.RAGGED, answers)
    with torch.no_grad(), trim(model, RANKING[method]) as run:
        logits = model(**inputs, logits_to_keep=longest + 1, use_cache=False).logits
        assert not says(run.report.warnings)
        with run.answer_from(width):
            again = model(**inputs, use_cache=False).logits[:, -longest - 1 :]
        for b, (prompt, answer) in enumerate(zip(tiny.RAGGED, answers, strict=True)):
            n = len(prompt.ids)
            ids = torch.tensor([prompt.ids + answer])
            labels = ids.clone()
            labels[:, :n] = -100
            alone = model(input_ids=ids, pixel_values=prompt.pixels, labels=labels).logits[0, n - 1 :]
            for found in (logits, again):
                assert close(found[b, : len(answer) + 1], alone)


def test_prompts_of_several_lengths_that_begin_together_are_in_doubt():
    prompts, answers = [tiny.sample(1, 9), tiny.sample(1, 5, seed=2)], [ANSWER, ANSWER[:3]]
    model, inputs = (
        tiny.shared(),
        tiny.batch([replace(p, ids=p.ids + a) for p, a in zip(prompts, answers, strict=True)], "right"),
    )
    starts = [len(p.ids) for p in prompts]
    kept = inputs["input_ids"].shape[1] - min(starts) + 1
    with torch.no_grad(), trim(model, FastV()) as run:
        model(**inputs, logits_to_keep=kept)
        assert "answer_from" in says(run.report.warnings)[0]
        with run.answer_from(starts):
            logits = model(**inputs).logits
        assert not says(run.report.warnings)
        for b, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids, n = torch.tensor([prompt.ids + answer]), len(prompt.ids)
            with run.answer_from(torch.tensor(n)):
                alone = model(input_ids=ids, pixel_values=prompt.pixels).logits[0, n - 1 :]
            found = logits[b, n - 1 : n + len(answer)]
            assert close(found, alone)


def test_several_answers_to_one_prompt_are_in_no_doubt():
    prompt = tiny.sample(1, 9)
    inputs, _, longest = trainer_batch([prompt, prompt], [ANSWER, ANSWER[:3]])
    with torch.no_grad(), trim(tiny.shared(), FastV()) as run:
        tiny.shared()(**inputs, logits_to_keep=longest + 1)
    assert not says(run.report.warnings)


@pytest.mark.parametrize("method", UNMOVED)
def test_no_warning_where_the_end_is_of_no_account(method):
    with torch.no_grad(), trim(tiny.shared(), UNMOVED[method]) as run:
        tiny.shared()(**tiny.batch([tiny.sample(1, 9)]))
    assert not says(run.report.warnings)


def test_no_warning_about_prompts():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with torch.no_grad(), trim(model, FastV()) as run:
        tiny.generate(model, inputs, 2)
        tiny.generate(model, inputs, 2, use_cache=False)
        model(**inputs, logits_to_keep=1)
        cache = model(**inputs, use_cache=True).past_key_values
        model(input_ids=torch.tensor([[5]]), past_key_values=cache)
    assert not any(says(report.warnings) for report in run.reports)


def test_logits_in_front_of_the_image_tell_nothing():
    sample = tiny.sample(1, 9)
    with torch.no_grad(), trim(tiny.shared(), FastV()) as run:
        tiny.shared()(**tiny.batch([sample]), logits_to_keep=len(sample.ids) - 1)
    assert len(says(run.report.warnings)) == 1


@pytest.mark.parametrize("first", [3, 0, 99, [25, 25]])
def test_places_that_do_not_fit(first):
    with trim(tiny.shared(), FastV()) as run, run.answer_from(first), pytest.raises(ValueError, match="answer_from"):
        tiny.shared()(**tiny.batch([tiny.sample(1, 9)]))


def test_places_that_are_no_numbers():
    with trim(tiny.shared(), FastV()) as run, pytest.raises(TypeError, match="argmax"), run.answer_from([0.5]):
        pass
