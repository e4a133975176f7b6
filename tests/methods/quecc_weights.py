"""Random QueCC weights for the tiny models, and their outputs, written from the formulas."""

import math
import tempfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from tests import tiny
from vistrim.architectures import discover
from vistrim.core.compressor import Compressor, CompressorShape, recorded_blocks
from vistrim.methods.base.artifacts import save_part

GRID = 4
HEADS = 2
_FOLDER = tempfile.TemporaryDirectory()


@cache
def random_part(stride: int = 2, seed: int = 0) -> str:
    """A file of random weights; it fits every tiny model."""
    model = tiny.shared()
    blocks = recorded_blocks(len(discover(model).images.tower.blocks))
    width = model.config.vision_config.hidden_size
    shape = CompressorShape(
        (GRID, GRID), stride, width, width * len(blocks), model.config.text_config.hidden_size, HEADS
    )
    torch.manual_seed(seed)
    network = Compressor(shape)
    with torch.no_grad():
        for parameter in network.parameters():
            # Peaky attention and tokens as large as word embeddings.
            scale = 1.0 if parameter.dim() < 2 else 2.0 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn_like(parameter) * scale)
    path = Path(_FOLDER.name) / f"{stride}-{seed}" / "quecc.safetensors"
    path.parent.mkdir(exist_ok=True)
    settings = shape.notes() | {"blocks": "/".join(map(str, blocks))}
    save_part(path, "quecc", discover(model).facts, network.state_dict(), settings)
    return str(path)


def perceptron(weights: dict[str, Tensor], name: str, x: Tensor, norm: bool = True) -> Tensor:
    x = functional.gelu(x @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"])
    x = x @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]
    return layer_norm(weights, f"{name}.3", x) if norm else x


def layer_norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def compressed(path: str, features: Tensor, states: Tensor, question: Tensor, side: int, heads: int) -> Tensor:
    """Tokens ``[(side / stride)^2, hidden]`` of one image, query by query, head by head."""
    weights = load_file(path)
    stride = weights["pool.weight"].shape[-1]
    width = features.shape[-1]
    asked = layer_norm(weights, "question.1", weights["question.0.weight"] @ question + weights["question.0.bias"])
    queries = perceptron(weights, "query", features + asked)
    keys, values = perceptron(weights, "key", states), perceptron(weights, "value", states)
    into, bias = weights["attention.in_proj_weight"].split(width), weights["attention.in_proj_bias"].split(width)
    tokens = []
    for row in range(0, side, stride):
        for column in range(0, side, stride):
            block = [(row + i) * side + column + j for i in range(stride) for j in range(stride)]
            kernel = weights["pool.weight"].reshape(width, -1)
            pooled = (queries[block].T * kernel).sum(1) + weights["pool.bias"]
            q = into[0] @ pooled + bias[0]
            k, v = keys[block] @ into[1].T + bias[1], values[block] @ into[2].T + bias[2]
            size = width // heads
            found = []
            for head in range(heads):
                of = slice(head * size, (head + 1) * size)
                found.append((k[:, of] @ q[of] / math.sqrt(size)).softmax(0) @ v[:, of])
            out = weights["attention.out_proj.weight"] @ torch.cat(found) + weights["attention.out_proj.bias"]
            tokens.append(perceptron(weights, "projector", out, norm=False))
    return torch.stack(tokens)
