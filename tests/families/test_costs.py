"""FLOPs of decoder layers are those of the matrix products that transformers computes, in every family."""

import contextlib

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.families.depth import WHOLE, slow_beside
from tests.families.matrix import STEPS, prompts, untouched
from tests.families.zoo import FAMILIES, shared
from vistrim.architectures import discover
from vistrim.core.costs import layer_flops
from vistrim.engine.report.untrimmed import UntrimmedCache

ALL_EXPERTS = ("llama4",)
"""Families of which transformers computes all experts for every token; those that a token is sent to are counted."""
SMALLER_EXPERTS = {"ernie4_5_vl_moe": 0.1}
"""Families whose experts for images are smaller than those for text, which are counted."""


def counted_layers(model, inputs):
    """FLOPs of each decoder layer in one forward pass, by torch's counter."""
    before, found = [], []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for layer in discover(model).layers:
            layer.register_forward_pre_hook(lambda *_: before.append(counter.get_total_flops()))
            layer.register_forward_hook(lambda *_: found.append(counter.get_total_flops() - before[-1]))
        model(**inputs, use_cache=False)
    return found


@pytest.mark.parametrize("name", slow_beside(WHOLE, FAMILIES))
def test_flops_of_decoder_layers(name):
    family = FAMILIES[name]
    model, inputs = family.build("eager").requires_grad_(False), family.batch(prompts(name)[:1])
    with contextlib.suppress(ValueError):
        # The counter does not know the kernel for experts; models without experts refuse.
        model.set_experts_implementation("eager")
    shape, tokens = discover(model).decoder_shape, inputs["input_ids"].shape[1]
    for layer, counted in enumerate(counted_layers(model, inputs)):
        flops = layer_flops(shape.at(layer), tokens, tokens)
        if name in ALL_EXPERTS:
            assert flops <= counted
        else:
            assert flops == pytest.approx(counted, rel=SMALLER_EXPERTS.get(name, 0.025))


@pytest.mark.parametrize("name", FAMILIES)
def test_bytes_of_an_untrimmed_cache(name):
    samples, held = prompts(name), untouched(name, "sdpa", "padded").cache_bytes
    length = max(len(sample.ids) for sample in samples) + STEPS - 1
    assert len(samples) * UntrimmedCache(discover(shared(name))).nbytes(length) == held
