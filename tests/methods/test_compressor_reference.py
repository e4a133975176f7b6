"""The reference of QueCC equals torch's own modules, and its reading of compressed images the stock model."""

import math

import pytest
import torch
from torch import nn

from tests import tiny
from tests.closeness import close
from tests.methods import masked_reference, quecc_rules
from tests.methods.masked_reference import Reading
from tests.methods.prompts import TEXT_BETWEEN, TEXT_ONLY

ANSWER = [17, 99, 5, 140]


def perceptron(inner, width, out, normed=True):
    layers = [nn.Linear(inner, width), nn.GELU(), nn.Linear(width, out)]
    return nn.Sequential(*layers, *([nn.LayerNorm(out)] if normed else []))


class Compressor(nn.Module):
    """QueCC out of torch's own modules."""

    def __init__(self, width, levels, hidden, stride, heads):
        super().__init__()
        self.stride = stride
        self.text, self.text_norm = nn.Linear(hidden, width), nn.LayerNorm(width)
        self.query = perceptron(width, width, width)
        self.key, self.value = perceptron(width * levels, width, width), perceptron(width * levels, width, width)
        self.downsample = nn.Conv2d(width, width, stride, stride, groups=width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.project = perceptron(width, hidden, hidden, normed=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, x, x_plus, question):
        images, n, width = x.shape
        side, s = math.isqrt(n), self.stride
        q = self.query(x + self.text_norm(self.text(question)))
        q = self.downsample(q.transpose(1, 2).reshape(images, width, side, side)).flatten(2).transpose(1, 2)

        def blocks(y):
            cut = nn.functional.unfold(y.transpose(1, 2).reshape(images, width, side, side), s, stride=s)
            return cut.view(images, width, s * s, -1).permute(0, 3, 2, 1).reshape(-1, s * s, width)

        mixed = self.attention(q.reshape(-1, 1, width), blocks(self.key(x_plus)), blocks(self.value(x_plus)))[0]
        return self.project(mixed.view(images, -1, width))

    def weights(self):
        """By the names of the reference."""
        names = {"text": "text.linear", "text_norm": "text.norm", "downsample": "downsample"}
        parts = {"0": "linear1", "2": "linear2", "3": "norm"}
        names |= {
            f"{name}.{i}": f"{name}.{p}" for name in ("query", "key", "value", "project") for i, p in parts.items()
        }
        named = {}
        for name, parameter in self.named_parameters():
            module, _, kind = name.rpartition(".")
            if module == "attention":
                for part, third in zip(("query", "key", "value"), parameter.data.chunk(3), strict=True):
                    named[f"attention.{part}.{kind.removeprefix('in_proj_')}"] = third
            elif module == "attention.out_proj":
                named[f"attention.out.{kind}"] = parameter.data
            elif name == "downsample.weight":
                named[name] = parameter.data[:, 0]
            else:
                named[f"{names[module]}.{kind}"] = parameter.data
        return named


@pytest.mark.parametrize("vision", ["clip_vision_model", "siglip_vision_model"])
@pytest.mark.parametrize(("stride", "heads"), [(1, 2), (2, 4), (4, 8)])
@torch.no_grad()
def test_compressor(stride, heads, vision):
    eager = tiny.shared("llama", "eager", vision)
    torch.manual_seed(stride)
    compressor = Compressor(16, 2, 32, stride, heads)
    pixels, question, levels = tiny.sample(2, 9).pixels, [12, 77, 3], (1, 2)
    got = quecc_rules.compress(eager, compressor.weights(), pixels, question, levels, stride, heads)
    states = eager.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    if vision == "clip_vision_model":
        states = [state[:, 1:] for state in states]
    read = eager.model.language_model(torch.tensor([question])).last_hidden_state[0, -1]
    x_plus = torch.cat([states[level] for level in levels], -1)
    expected = compressor(states[eager.config.vision_feature_layer], x_plus, read)
    assert got.shape == (2, (4 // stride) ** 2, 32)
    assert close(got, expected)


@pytest.mark.parametrize("prompt", [*tiny.RAGGED, TEXT_BETWEEN, TEXT_ONLY])
@torch.no_grad()
def test_reading_an_answer_to_embedded_images(prompt):
    """With the embeddings that the model itself makes, the answer is that to the images."""
    model = tiny.shared("llama", "eager")
    images = torch.zeros(0, 16, 32)
    if prompt.visual:
        images = torch.stack(list(model.get_image_features(prompt.pixels, return_dict=True).pooler_output))
    reading = Reading.of(model, prompt, ANSWER)
    expected = masked_reference.logits(model, reading, lambda layer: reading.causal)
    got = quecc_rules.follow(model, prompt, images, ANSWER)
    assert close(got, expected)
