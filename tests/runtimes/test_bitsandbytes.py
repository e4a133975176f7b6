"""Models with 8-bit and 4-bit weights are trimmed as they were quantized."""

import pytest
import torch

from tests.closeness import close
from tests.engine.test_keep_everything import KeepEverything
from tests.families.depth import slow_beside
from tests.families.masked_reference import MaskedReference
from tests.families.test_masked_reference import follow
from tests.families.zoo import FAMILIES
from tests.families.zoo.family import IMAGE
from tests.oracle import st3_schedule
from tests.runtimes.few_bits import BITS, NAMES, shared
from tests.tiny import generate, logits
from vistrim import ST3, YOPO, FastV, PyramidDrop, UnsupportedModelError, trim

LAYERS = {"int8": "Linear8bitLt", "int8-all": "Linear8bitLt", "nf4": "Linear4bit"}
QUICK = ("llava", "qwen3_vl")
EACH = pytest.mark.parametrize(("name", "bits"), slow_beside(QUICK, [(name, bits) for name in NAMES for bits in BITS]))
# By default int8 keeps a column in 16 bits for all rows of a call if one row is large there. So the result of a row
# depends on its company, and the stock model itself differs by hundredths from its answers without a cache.
COMPARABLE = pytest.mark.parametrize(
    ("name", "bits"), slow_beside(QUICK, [(name, bits) for name in NAMES for bits in BITS if bits != "int8"])
)
STEPS = 5


@EACH
def test_keeping_everything_changes_no_bit(name, bits):
    family, model = FAMILIES[name], shared(name, bits)
    assert type(model.get_decoder().layers[0].self_attn.q_proj).__name__ == LAYERS[bits]
    inputs = family.batch([family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)])
    untouched = generate(model, inputs, STEPS)
    with trim(model, KeepEverything()):
        output = generate(model, inputs, STEPS)
    assert torch.equal(logits(untouched), logits(output))


@COMPARABLE
def test_it_equals_the_masked_reference(name, bits):
    family, model = FAMILIES[name], shared(name, bits, packed=False)
    sample, method = family.sample(2, 9, seed=1), ST3(1, 1, 0.3, "cosine", 7, 0.1, interval=1)
    inputs = family.batch([sample])
    with trim(model, method) as run:
        output = generate(model, inputs, STEPS)
    answer = output.sequences[0, len(sample.ids) :].tolist()
    schedule = st3_schedule(start=1, stride=1, ratio=0.3, decay="cosine", horizon=7, floor=0.1)
    reference = MaskedReference(family, model, schedule)
    expected = follow(reference, answer, sample)
    assert close(logits(output)[0], expected)
    if name != "gemma3":
        # Whose windows evict on their own.
        assert [n[0] for n in run.report.kv_tokens_per_layer] == reference.kv_lengths()
    with trim(model, KeepEverything()):
        untouched = generate(model, inputs, STEPS)
    assert (logits(output) - logits(untouched)).abs().max() > 0.1


METHODS = {"layer ahead": PyramidDrop(layers=(2,), keep=(0.4,), positions="original"), "layer before": FastV(3, 0.4)}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("ranks_by", METHODS)
def test_the_quantized_layer_ranks(bits, ranks_by):
    """By the attention that transformers returns of layer 2."""
    model, family = shared("llava", bits, packed=False), FAMILIES["llava"]
    inputs = family.batch([family.sample(2, 9, seed=1)])
    with trim(model, METHODS[ranks_by]) as run:
        generate(model, inputs, 2)
    with torch.no_grad():
        attention = model(**inputs, output_attentions=True).attentions[2][0].mean(0)[-1]
    order = attention[inputs["input_ids"][0] == IMAGE].argsort(descending=True)
    (stage,) = run.report.stages
    assert 0 < len(stage.kept[0]) < len(order)
    assert stage.kept[0] == sorted(order[: len(stage.kept[0])].tolist())


@pytest.mark.parametrize("bits", BITS)
def test_cuts_inside_quantized_layers_are_refused(bits):
    heads = ((False, *[True] * 7),) * 4
    with pytest.raises(UnsupportedModelError, match=r"no plain q_proj.*heads=none"):
        trim(shared("llava", bits), YOPO(None, heads, None, 1.0))
