"""One budget for all methods: the plan is the report, and the budget is reached from below."""

import re
from dataclasses import replace

import pytest
import torch

import vistrim
from tests import tiny
from tests.families.zoo import FAMILIES, shared
from tests.methods.every_method import SETTINGS, built
from vistrim.engine import describe
from vistrim.errors import MethodError
from vistrim.methods.base.budgeted import read_budget
from vistrim.methods.base.notation import parse_method
from vistrim.methods.base.plan import make_plan
from vistrim.prompt_sizes import prompt_sizes

NEW = 6
UNPLANNED = {"dyvte", "quecc", "yopo"}
"""Their counts depend on the prompt, or their FLOPs on what they cut inside the layers."""
REFUSED = UNPLANNED | {"blind"}
OUT_OF_REACH = {("hybrid", "flops"), ("hybrid", "kv")}
"""At most, half of the tokens enter the decoder and are cut from there on."""


KINDS = (
    *("uniform:keep=0.4", "divprune:keep=4", "cdpruner:keep=0.3", "visionzip:dominant=4,contextual=2", "vtw:layer=2"),
    *("fastv:layer=1,keep=0.4", "dart:keep=5,layer=2,image_pivots=1,text_pivots=1", "psigmoid:mean_keep=0.5,kappa=0.7"),
    *("sparsevlm:layers=1/2,counts=7/3", "pyramiddrop:layers=1/2/3", "pvtp:start_layer=1,stride=1"),
    *("vta:horizon=4,floor=0.1,interval=1", "random:keep=6+st3:start_layer=2,stride=1,horizon=9,interval=1"),
)
"""Selections before the decoder, one cut, several cuts, annealing, merging and compositions."""


def run(model, inputs, method):
    with torch.no_grad(), vistrim.trim(model, method) as trimmed:
        tiny.generate(model, inputs, NEW, min_new_tokens=NEW)
    return trimmed.report


def every_method():
    """A tiny LLaVA with all methods."""
    composed = vistrim.compose(vistrim.Uniform(0.5), vistrim.ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1))
    methods = [*(built(name) for name in SETTINGS if name not in UNPLANNED), composed]
    return tiny.shared(), tiny.batch([tiny.sample(2, 9)]), methods


def family(name):
    """Tiles with separators, or images of many sizes, with methods of each kind."""
    methods = map(parse_method, KINDS)
    # The positions of M-RoPE cannot be renumbered.
    original = [replace(each, positions="original") if hasattr(each, "positions") else each for each in methods]
    return shared(name), FAMILIES[name].batch([FAMILIES[name].sample(2, 9)]), original


def reference_small():
    model, _ = vistrim.load("reference-small")
    image = [model.config.image_token_id] * describe(model).images.tokens
    ids = torch.tensor([[5] * 7 + image + [6] * 11])
    methods = list(
        map(parse_method, (*KINDS, "fastervlm:keep=0.3", "vispruner:keep=9", "vscan:keep=20,layer=2,left=9"))
    )
    pixels = torch.randn(1, 3, *[model.config.vision_config.image_size] * 2, generator=torch.Generator().manual_seed(0))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}, methods


SUBJECTS = {
    "tiny": every_method,
    "llava_next": lambda: family("llava_next"),
    "qwen2_5_vl": lambda: family("qwen2_5_vl"),
    "reference-small": reference_small,
}


@pytest.mark.parametrize(
    "subject", [pytest.param(name, marks=pytest.mark.slow if name != "tiny" else ()) for name in SUBJECTS]
)
def test_the_plan_is_the_report(subject):
    model, inputs, methods = SUBJECTS[subject]()
    spec = describe(model)
    (sizes,) = prompt_sizes(spec, inputs, NEW)
    for method in methods:
        plan = make_plan(method.fitted(spec.facts), spec.facts, sizes, NEW)
        report = run(model, inputs, method)
        assert report.visual_tokens == [plan.visual]
        assert [n for (n,) in report.visual_tokens_per_layer] == list(plan.visual_per_layer), method
        assert [n for (n,) in report.kv_tokens_per_step] == list(map(sum, plan.kv_tokens_per_step)), method
        assert report.kv_fraction_mean == pytest.approx(plan.kv_fraction_mean), method
        assert (report.prefill_flops, report.prefill_flops_full) == (plan.prefill_flops, plan.prefill_flops_full)
        assert method.name == "sgl" or report.method_flops == [plan.method_flops], method
        assert plan.average_tokens < plan.visual or plan.kv_fraction_mean < 1


@pytest.mark.slow
def test_every_method_reaches_its_budgets_from_below():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(2, 9)])
    for name in SETTINGS:
        for kind, wanted in (("tokens", 0.5), ("tokens", 16), ("flops", 0.6), ("kv", 0.7)):
            if name in REFUSED or (name, kind) == ("sgl", "flops"):
                with pytest.raises(MethodError, match=name):
                    vistrim.at_budget(built(name), model, inputs=inputs, **{kind: wanted})
                continue
            arguments = {"inputs": inputs, "new_tokens": NEW, kind: wanted}
            if name == "vta" or (name, kind) in OUT_OF_REACH:
                with pytest.raises(ValueError, match=f"{name} cannot reach {kind}={wanted}: it reaches from"):
                    vistrim.at_budget(built(name), model, **arguments)
                continue
            found = vistrim.at_budget(built(name), model, **arguments)
            assert 0 < found.reached <= wanted
            # No 0.8099999999999999.
            assert all(len(digits) <= 12 for digits in re.findall(r"\.(\d+)", str(found))), str(found)
            if isinstance(wanted, int):
                continue
            report = run(model, inputs, found)
            figures = {
                "tokens": report.average_tokens / report.visual_tokens[0],
                "flops": (report.prefill_flops + sum(report.method_flops)) / report.prefill_flops_full,
                "kv": report.kv_fraction_mean,
            }
            assert figures[kind] == pytest.approx(found.reached), (name, kind)
            if name in ("uniform", "fastv", "pvtp", "pyramiddrop", "psigmoid"):
                assert wanted - found.reached < 1 / 16, (name, kind)
                assert isinstance(found.value, tuple) or len(str(found.value)) <= len("0.1234567"), str(found)


def test_proportions_are_kept():
    model = tiny.shared()
    first, *others = vistrim.at_budget("pyramiddrop", model, tokens=0.3).method.keep
    assert others == pytest.approx([first / 2, first / 4])
    zipped = vistrim.at_budget("visionzip", model, tokens=0.5).method
    assert zipped.dominant / zipped.contextual == pytest.approx(5.4)
    composed = vistrim.at_budget("uniform+vta:horizon=8,interval=1", model, tokens=0.25)
    assert (composed.parameter, composed.reached) == ("keep", 0.25)
    assert str(composed).endswith("vta:decay=cosine,horizon=8,floor=0.5,interval=1")


def test_wrong_budgets():
    model = tiny.shared()
    with pytest.raises(ValueError, match="exactly one"):
        vistrim.at_budget("uniform", model, tokens=0.3, kv=0.3)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        vistrim.at_budget("uniform", model, flops=1.5)
    with pytest.raises(ValueError, match=r"fastv cannot reach tokens=0.2: it reaches from 0.4 to 1"):
        vistrim.at_budget("fastv", model, tokens=0.2)
    with pytest.raises(MethodError, match="routers decide"):
        vistrim.at_budget("dyvte", model, tokens=0.5)
    assert (read_budget("tokens=192"), read_budget("kv=0.5")) == ({"tokens": 192}, {"kv": 0.5})
    for text in ("tokens", "tokens=x", "time=3"):
        with pytest.raises(ValueError, match="is no budget"):
            read_budget(text)


def test_a_method_with_a_budget_as_plain_data():
    model = tiny.shared()
    data = {"method": "pyramiddrop", "budget": "tokens=0.3"}
    assert vistrim.method_from_dict(data, model) == vistrim.at_budget("pyramiddrop", model, tokens=0.3).method
    assert vistrim.method_from_dict({"method": "fastv", "budget": None}) == vistrim.FastV()
    for values, given, says in (
        (data, None, "pass the model"),
        ({"method": "fastv", "budget": 0.3}, model, 'key "budget" must be text'),
        ({"method": "fastv", "budget": "time=3"}, model, "is no budget"),
        ({"budget": "tokens=0.3"}, model, 'key "method"'),
    ):
        with pytest.raises(ValueError, match=says):
            vistrim.method_from_dict(values, given)
