"""QueCC from the formulas, with loops over blocks and heads. No code of the package is used."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from tests import tiny

Weights = Mapping[str, Tensor]
"""Matrices are ``[out, in]``. C is the width of the patch features, D that of the language model.

``text.linear`` ``[C, D]`` and ``text.norm`` (W_t and its LN); ``query.linear1``, ``query.linear2`` and ``query.norm``
(MLP_q); ``downsample.weight`` ``[C, s, s]``; ``key.*`` and ``value.*`` as ``query.*``, with ``linear1``
``[C, C * levels]``; ``attention.query``, ``attention.key``, ``attention.value`` and ``attention.out`` ``[C, C]``;
``project.linear1`` ``[D, C]`` and ``project.linear2`` ``[D, D]``. Each linear layer and norm ``x`` is ``x.weight`` and
``x.bias``, as is ``downsample``; without the latter there is no bias.
"""


@torch.no_grad()
def compress(
    model: Any,
    weights: Weights,
    pixels: Tensor,
    question: list[int],
    levels: Sequence[int],
    stride: int,
    heads: int = 8,
    eps: float = 1e-5,
) -> Tensor:
    """Embeddings ``[images, tokens, D]`` of images, compressed for a question.

    Parameters
    ----------
    model : LlavaForConditionalGeneration
        Its tower, its choice of features and its decoder are used, its projector is not.
    weights : Weights
        Of the compressor.
    pixels : Tensor
        ``[images, 3, height, width]``.
    question : list of int
        Token ids that are read without the images; the state of the last one is the question.
    levels : sequence of int
        Hidden states of the tower (0 is what enters block 0) that keys and values are made of.
    stride : int
        Rows and columns of patches per query.
    heads : int
        Attention heads.
    eps : float
        Of the layer norms.
    """
    read = model.get_decoder()(input_ids=torch.tensor([question]), use_cache=False)
    asked = _norm(_linear(read.last_hidden_state[0, -1], weights, "text.linear"), weights, "text.norm", eps)
    tower = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    class_tokens = int(model.config.vision_feature_select_strategy == "default")
    compressed = []
    for image in range(len(pixels)):
        states = [state[image, class_tokens:] for state in tower]
        x = states[model.config.vision_feature_layer]
        x_plus = torch.cat([states[level] for level in levels], -1)
        side = math.isqrt(len(x))
        q = torch.stack([_mlp(row + asked, weights, "query", eps) for row in x])
        k = torch.stack([_mlp(row, weights, "key", eps) for row in x_plus])
        v = torch.stack([_mlp(row, weights, "value", eps) for row in x_plus])
        tokens = []
        for top in range(0, side, stride):
            for left in range(0, side, stride):
                block = [(top + i) * side + left + j for i in range(stride) for j in range(stride)]
                query = _downsample(q[block], weights, stride)
                tokens.append(_project(_attend(query, k[block], v[block], weights, heads), weights))
        compressed.append(torch.stack(tokens))
    return torch.stack(compressed)


@torch.no_grad()
def follow(model: Any, prompt: tiny.Sample, images: Tensor, answer: list[int]) -> Tensor:
    """Logits of every step of an answer by the stock model, to a prompt that has as many image tokens as ``images``."""
    embed = model.get_input_embeddings()
    rows, remaining = [], list(images)
    i = 0
    while i < len(prompt.ids):
        if prompt.ids[i] == tiny.IMAGE:
            rows.append(remaining.pop(0))
            i += tiny.TOKENS_PER_IMAGE
        else:
            rows.append(embed(torch.tensor([prompt.ids[i]])))
            i += 1
    start = sum(map(len, rows)) - 1
    rows.append(embed(torch.tensor(answer[:-1], dtype=torch.long)))
    output = model(inputs_embeds=torch.cat(rows)[None], use_cache=False)
    return output.logits[0, start:]


def _attend(query: Tensor, keys: Tensor, values: Tensor, weights: Weights, heads: int) -> Tensor:
    """One query over its block."""
    q = _linear(query, weights, "attention.query")
    k = [_linear(key, weights, "attention.key") for key in keys]
    v = [_linear(value, weights, "attention.value") for value in values]
    size = len(q) // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        share = torch.stack([q[part] @ key[part] for key in k]).div(math.sqrt(size)).softmax(0)
        mixed.append(sum(w * value[part] for w, value in zip(share, v, strict=True)))
    return _linear(torch.cat(mixed), weights, "attention.out")


def _downsample(block: Tensor, weights: Weights, stride: int) -> Tensor:
    """Each channel on its own: a weighted sum over the block ``[s * s, C]``."""
    kernel = weights["downsample.weight"]
    total = sum(kernel[:, i, j] * block[i * stride + j] for i in range(stride) for j in range(stride))
    return total + weights.get("downsample.bias", 0.0)


def _project(x: Tensor, weights: Weights) -> Tensor:
    return _linear(gelu(_linear(x, weights, "project.linear1")), weights, "project.linear2")


def _mlp(x: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    inner = gelu(_linear(x, weights, f"{name}.linear1"))
    return _norm(_linear(inner, weights, f"{name}.linear2"), weights, f"{name}.norm", eps)


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0.0)


def _norm(x: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    centered = x - x.mean()
    scaled = centered / (centered.square().mean() + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0.0)
