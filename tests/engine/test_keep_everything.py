"""A method that keeps everything changes no bit."""

from dataclasses import dataclass

import pytest
import torch

from tests import tiny
from tests.covering import covering
from vistrim import PVTP, Pool, Random, Uniform, trim
from vistrim.core.selection import Selection
from vistrim.methods.base.method import Method


@dataclass(frozen=True)
class KeepEverything(Method):
    """Is asked at every stage, scores every layer at every step, and keeps everything."""

    name, summary, source = "keep", "", ""
    stages = ("input", "prefill", "decode")

    def select_input(self, tokens):
        return Selection(tokens.visual, tuple(map(sum, tokens.images)))

    def prefill_layers(self, depth):
        return tuple(range(1, depth))

    def select_prefill(self, layer, tokens):
        assert tokens.scores.shape == tokens.visual.shape
        return Selection(tokens.visual, tokens.held)

    def decode_counts(self, layer, step, initial, left, depth):
        return tuple(initial)


class KeepInPrefill(KeepEverything):
    """The same without the decode stage."""

    stages = ("input", "prefill")


CASES = {
    "one": ([tiny.sample(1, 9)], {}),
    "several images": ([tiny.sample(3, 9)], {}),
    "ragged batch": (tiny.RAGGED, {}),
    "batch without padding": (tiny.SAME_LENGTH, {}),
    "beam search": (tiny.RAGGED[:2], {"num_beams": 2}),
    "sampling": (tiny.RAGGED[:2], {"do_sample": True, "num_return_sequences": 2}),
    "no cache": (tiny.RAGGED[:2], {"use_cache": False}),
}


@covering
@pytest.mark.parametrize("text", tiny.TEXTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_bit_identical(case, attention, text):
    samples, options = CASES[case]
    model, inputs = tiny.shared(text, attention), tiny.batch(samples)
    torch.manual_seed(3)
    untouched = tiny.generate(model, inputs, 4, **options)
    torch.manual_seed(3)
    method = KeepInPrefill() if case == "no cache" else KeepEverything()
    with trim(model, method) as run:
        output = tiny.generate(model, inputs, 4, **options)
    assert torch.equal(untouched.sequences, output.sequences)
    assert torch.equal(tiny.logits(untouched), tiny.logits(output))
    if "use_cache" not in options:
        assert run.report.kv_bytes == run.report.kv_bytes_full == run.report.kv_bytes_peak
    assert run.report.prefill_flops == run.report.prefill_flops_full
    assert any("nothing was trimmed" in w for w in run.report.warnings)


@pytest.mark.parametrize("vision", ["clip_vision_model", "siglip_vision_model"])
@pytest.mark.parametrize(
    "method", [PVTP(drop_per_cut=0.0), Random(keep=1.0), Uniform(keep=1.0), Pool(keep=1.0), Uniform(keep=99)]
)
def test_methods_at_full_budget(method, vision):
    model, inputs = tiny.shared(vision=vision), tiny.batch(tiny.RAGGED)
    untouched = tiny.generate(model, inputs, 4)
    with trim(model, method):
        output = tiny.generate(model, inputs, 4)
    assert torch.equal(tiny.logits(untouched), tiny.logits(output))


def test_two_turns_and_prompt_lookup():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    more = torch.tensor([[5, 6, 7]])

    def talk():
        first = tiny.generate(model, inputs, 4)
        second = tiny.generate(model, tiny.follow_up(first, inputs, more), 4)
        third = tiny.generate(model, inputs, 16, prompt_lookup_num_tokens=2, max_matching_ngram_size=1)
        return torch.cat([tiny.logits(o)[0] for o in (first, second, third)])

    untouched = talk()
    with trim(model, PVTP(drop_per_cut=0.0)):
        assert torch.equal(untouched, talk())


def test_labels_hidden_states_and_attentions():
    model, inputs = tiny.shared("llama", "eager"), tiny.batch(tiny.RAGGED)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    options = {"labels": labels, "output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        untouched = model(**inputs, **options)
        with trim(model, KeepEverything()):
            output = model(**inputs, **options)
    assert torch.equal(untouched.loss, output.loss)
    for a, b in zip(
        untouched.hidden_states + untouched.attentions, output.hidden_states + output.attentions, strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, inputs = tiny.build().to(dtype), tiny.batch(tiny.RAGGED)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    untouched = tiny.generate(model, inputs, 4)
    with trim(model, KeepEverything()):
        output = tiny.generate(model, inputs, 4)
    assert torch.equal(tiny.logits(untouched), tiny.logits(output))
    with trim(model, PVTP(1, 2, 0.5)) as run:
        output = tiny.generate(model, inputs, 4)
    assert torch.isfinite(tiny.logits(output)).all()
    assert run.report.kv_bytes < run.report.kv_bytes_full
