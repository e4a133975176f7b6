"""Budgets of prompts with images of different sizes."""

import pytest
import torch

import vistrim
from tests import tiny
from tests.families.zoo import FAMILIES, shared
from vistrim import prompt_budgets
from vistrim.engine import describe
from vistrim.errors import MethodError, ParameterError
from vistrim.methods.base.notation import parse_method
from vistrim.prompt_budgets import PromptBudgets
from vistrim.prompt_sizes import sizes_of

FAMILY = "qwen2_5_vl"
METHOD = parse_method("fastv:layer=1")


def test_each_prompt_has_its_method_which_is_found_once_for_images_of_the_same_sizes(monkeypatch):
    family, model = FAMILIES[FAMILY], shared(FAMILY)
    samples = [family.sample(1, 9), family.sample(2, 9), family.sample(1, 14), family.sample(0, 9)]
    inputs = family.batch(samples)
    sizes = sizes_of(describe(model), inputs)
    solved = []
    solve = prompt_budgets.solve
    monkeypatch.setattr(prompt_budgets, "solve", lambda *given: solved.append(given) or solve(*given))
    budgets = PromptBudgets(model)
    methods = budgets.methods(METHOD, "tokens=0.6", inputs)
    assert budgets.methods(METHOD, "tokens=0.6", inputs) == methods
    assert len(solved) == len({each.images for each in sizes if each.visual})
    assert methods[3] == METHOD
    assert budgets.methods(METHOD, "tokens=0.6", family.batch(samples[3:])) == [METHOD]
    for sample, size, method in zip(samples[:3], sizes, methods, strict=False):
        alone = family.batch([sample])
        assert method == vistrim.at_budget(METHOD, model, tokens=0.6, inputs=alone).method
        with torch.no_grad(), vistrim.trim(model, method) as run:
            tiny.generate(model, alone, 1)
        assert run.report.average_tokens <= 0.6 * size.visual


def test_what_cannot_be_reached_is_refused_with_the_range():
    budgets = PromptBudgets(tiny.shared())
    inputs = tiny.batch([tiny.sample(1, 9)])
    with pytest.raises(ParameterError, match=r"budget tokens=0\.1: fastv cannot reach .* it reaches from"):
        budgets.check(METHOD, "tokens=0.1")
    with pytest.raises(ParameterError, match="it reaches from"):
        budgets.methods(METHOD, "tokens=0.1", inputs)
    with pytest.raises(ParameterError, match="blind cannot be set to a budget"):
        budgets.check(parse_method("blind"), "tokens=0.5")
    with pytest.raises(MethodError, match="blind cannot be set to a budget"):
        budgets.methods(parse_method("blind"), "tokens=0.5", inputs)
    with pytest.raises(ParameterError, match="is no budget"):
        budgets.check(METHOD, "x")
    # The sizes of its images are not known before there is a prompt.
    PromptBudgets(shared(FAMILY)).check(METHOD, "tokens=0.1")


def test_the_text_of_a_prompt_does_not_count():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 30)])
    for kind in ("flops", "kv"):
        (method,) = PromptBudgets(model).methods(METHOD, f"{kind}=0.93", inputs)
        assert method == vistrim.at_budget(METHOD, model, **{kind: 0.93}).method
