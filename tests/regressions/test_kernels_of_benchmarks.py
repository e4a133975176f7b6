"""Benchmarks find layers as the engine does, and take the attention kernel that transformers takes."""

import pytest

from tests.families.zoo import EVERY
from vistrim.benchmark.subject import Wanted
from vistrim.benchmark.weights import stacks, step_bytes, use_kernel
from vistrim.engine import describe
from vistrim.errors import BenchmarkError


@pytest.mark.parametrize("name", ["llama4", "paligemma-gemma2", "qwen2_vl"])
def test_layers_of_decoders_that_are_wrapped(name):
    model = EVERY[name].build()
    spec = describe(model)
    assert stacks(model)[0] == spec.layers
    assert step_bytes(model) > sum(p.nbytes for layer in spec.layers for p in layer.parameters())


def test_a_kernel_that_the_model_does_not_have():
    model = EVERY["paligemma-gemma2"].build()
    use_kernel(model, Wanted("paligemma").attn)
    assert describe(model).decoder.config._attn_implementation == "eager"
    with pytest.raises(BenchmarkError, match="'sdpa' cannot be used: choose eager "):
        use_kernel(model, "sdpa")
    use_kernel(model, "eager")
