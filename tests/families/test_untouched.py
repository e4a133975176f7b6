"""In every family, a method that keeps everything changes no bit, and leaving it gives the model back as it was."""

import pytest
import torch

from tests.engine.test_keep_everything import KeepEverything
from tests.engine.test_lifecycle import fingerprint
from tests.families.matrix import BATCHES, STEPS, each_attention, held_rows, prompts, untouched
from tests.families.zoo import FAMILIES, shared
from tests.tiny import generate, logits
from vistrim import trim
from vistrim.engine.releases import CACHE


def state(model):
    """Everything that an engine could leave behind, attention kernels included."""
    with_config = ((name, m) for name, m in model.named_modules() if hasattr(m, "config"))
    return fingerprint(model) | {(name, "kernel"): m.config._attn_implementation for name, m in with_config}


@pytest.mark.cell(stage="nothing cut")
@pytest.mark.parametrize("batch", BATCHES)
@each_attention
@pytest.mark.parametrize("name", FAMILIES)
def test_keeping_everything_is_bit_identical(name, attention, batch):
    model, samples = shared(name, attention), prompts(name)[: BATCHES[batch]]
    inputs, stock = FAMILIES[name].batch(samples), untouched(name, attention, batch)
    before = state(model)
    generate(model, inputs, 1)
    usual = state(model)
    with trim(model, KeepEverything()) as run:
        output = generate(model, inputs, STEPS)
        assert state(model) != usual
    # A few models keep a tensor of their last call, another one each time.
    kept = {key for key in usual if before[key] == usual[key]}
    left = state(model)
    assert left.keys() == usual.keys()
    assert all(left[key] == usual[key] for key in kept)
    assert {key for _, key in usual.keys() - kept} <= {"rope_deltas"}
    assert torch.equal(logits(output), stock.logits)
    assert torch.equal(logits(generate(model, inputs, STEPS)), stock.logits)
    report, width = run.report, inputs["input_ids"].shape[1]
    assert report.visual_tokens == [s.visual for s in samples]
    assert report.prompt_tokens == [len(s.ids) for s in samples]
    assert report.kv_bytes == report.kv_bytes_full == report.kv_bytes_peak == stock.cache_bytes
    assert report.prefill_flops == report.prefill_flops_full
    for b, s in enumerate(samples):
        for layer in output[CACHE].layers:
            everything = list(range(len(s.ids) + STEPS - 1))
            assert held_rows(layer, b, width - len(s.ids)) == everything[-layer.full_length :]
