"""QueCC equals the stock model on a prompt that has few image tokens, whose embeddings plain loops have compressed."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.methods.prompts import BATCHES, kernels_and_prompts
from tests.methods.quecc_rules import compress, follow
from tests.methods.test_against_dense import NEW_TOKENS, answers
from tests.methods.test_compressor_reference import Compressor
from vistrim import QueCC, trim
from vistrim.architectures import discover
from vistrim.methods.base.artifacts import save_part

LEVELS, HEADS = (1, 2), 8
# There the question would be empty.
PROMPTS = {name: samples for name, samples in BATCHES.items() if name != "ends-with-image"}


def weights_of(stride, width=16, hidden=32):
    torch.manual_seed(stride)
    return Compressor(width, len(LEVELS), hidden, stride, HEADS).weights()


MODULES = {
    "text.linear": "question.0",
    "text.norm": "question.1",
    "downsample": "pool",
    "attention.out": "attention.out_proj",
    "project.linear1": "projector.0",
    "project.linear2": "projector.2",
    **{
        f"{part}.{ours}": f"{part}.{theirs}"
        for part in ("query", "key", "value")
        for ours, theirs in (("linear1", 0), ("linear2", 2), ("norm", 3))
    },
}
"""Names of the modules in the method's file, but for the three that it has as one."""


def method_for(model, weights, stride, folder):
    """Write the weights as the method reads them."""
    tensors = {
        f"{MODULES[name]}.{kind}": tensor
        for (name, kind), tensor in ((full.rsplit(".", 1), tensor) for full, tensor in weights.items())
        if name in MODULES
    }
    tensors["pool.weight"] = tensors["pool.weight"][:, None]
    for kind in ("weight", "bias"):
        joined = torch.cat([weights[f"attention.{part}.{kind}"] for part in ("query", "key", "value")])
        tensors[f"attention.in_proj_{kind}"] = joined
    width = len(tensors["attention.in_proj_bias"]) // 3
    settings = {
        "grid": "4x4",
        "stride": stride,
        "width": width,
        "states": width * len(LEVELS),
        "heads": HEADS,
        # Hidden state 1 is the output of block 0.
        "blocks": "/".join(str(level - 1) for level in LEVELS),
    }
    path = folder / "quecc.safetensors"
    save_part(path, "quecc", discover(model).facts, tensors, settings)
    return QueCC(str(path))


def question(sample):
    """The question: the text after the last image."""
    last = max((i for i, token in enumerate(sample.ids) if token == tiny.IMAGE), default=-1)
    return sample.ids[last + 1 :]


def run(model, oracle_model, samples, stride, folder):
    weights = weights_of(stride)
    inputs = tiny.batch(samples)
    with trim(model, method_for(model, weights, stride, folder)) as trimmed:
        output = tiny.generate(model, inputs, NEW_TOKENS)
    for b, (sample, answer) in enumerate(zip(samples, answers(output, inputs), strict=True)):
        images = torch.zeros(0, 1, 32)
        if sample.visual:
            images = compress(oracle_model, weights, sample.pixels, question(sample), LEVELS, stride, HEADS)
        expected = follow(oracle_model, sample, images, answer)
        assert close(tiny.logits(output)[b], expected)
        visual = len(images) * (4 // stride) ** 2
        report = trimmed.report
        assert [n[b] for n in report.visual_tokens_per_layer] == [visual] * tiny.DEPTH
        assert [n[b] for n in report.kv_tokens_per_layer] == [visual + sample.text + NEW_TOKENS - 1] * tiny.DEPTH


@pytest.mark.parametrize(
    ("attention", "prompts"),
    kernels_and_prompts(PROMPTS),
)
@pytest.mark.parametrize("stride", [2, 4])
def test_equals_the_stock_model(stride, prompts, attention, tmp_path):
    run(tiny.shared("llama", attention), tiny.shared("llama", "eager"), PROMPTS[prompts], stride, tmp_path)


@pytest.mark.parametrize("text", ["mistral", "qwen2"])
def test_other_decoders(text, tmp_path):
    run(tiny.shared(text), tiny.shared(text, "eager"), tiny.RAGGED, 2, tmp_path)


def test_vision_tower_without_class_token(tmp_path):
    models = [tiny.shared("llama", attention, "siglip_vision_model") for attention in ("sdpa", "eager")]
    run(*models, tiny.RAGGED, 2, tmp_path)
