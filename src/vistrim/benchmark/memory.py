"""Memory that a run needs, and memory that is free."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistrim.benchmark.weights import shared_parameters
from vistrim.engine import ModelSpec, describe

MARGIN = 1.1
"""Factor for memory that is not counted."""
GIB = 1 << 30


@dataclass(frozen=True)
class Needs:
    """Upper bound of the untouched model's bytes; further needs of methods, such as a guide model, are not included.

    Attributes
    ----------
    weights : int
        All parameters; tensors that layers share count once.
    cache : int
        Keys and values of prompts and answers, and those of one layer a second time, as it is copied while it grows.
    activations : int
        Activations of a decoder layer in prefill or of the vision tower for all images at once, whichever is larger,
        plus pixels and features of the images.
    """

    weights: int
    cache: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of all parts, with the margin."""
        return round(MARGIN * (self.weights + self.cache + self.activations))

    def __str__(self) -> str:
        parts = (("weights", self.weights), ("KV cache", self.cache), ("activations", self.activations))
        named = ", ".join(f"{name} {gib(size)}" for name, size in parts)
        return f"{gib(self.total)} GiB ({named}, and a margin of {MARGIN - 1:.0%})"


def gib(size: int) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.1f}" if size >= GIB else f"{size / GIB:.3f}"


def needs(model: Any, inputs: Mapping[str, Tensor], new_tokens: int, distinct_layers: int | None = None) -> Needs:
    """Compute the memory that generating with a model needs.

    Parameters
    ----------
    model : PreTrainedModel
        The model, with or without storage.
    inputs : mapping of str to Tensor
        Arguments of ``generate``, with or without storage.
    new_tokens : int
        Tokens generated per sample.
    distinct_layers : int, optional
        Layers and blocks that will have their own weights.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be trimmed.
    """
    spec = describe(model)
    shape = spec.decoder_shape
    batch, prompt = inputs["input_ids"].shape
    size = model.dtype.itemsize
    shared = {} if distinct_layers is None else shared_parameters(model, distinct_layers)
    tower, held = _tower(spec, inputs)
    cached = [shape.at(layer).cached_per_token * size for layer in range(shape.layers)]
    return Needs(
        weights=sum(parameter.nbytes for parameter in model.parameters() if id(parameter) not in shared),
        cache=batch * (prompt + new_tokens) * (sum(cached) + max(cached)),
        activations=held + max(tower, _decoder(spec, batch, prompt)),
    )


def _decoder(spec: ModelSpec, batch: int, prompt: int) -> int:
    """Eight rows of hidden states (embeddings, features, residual, queries, ...), three of neurons; logits."""
    shape, size = spec.decoder_shape, spec.dtype.itemsize
    rows = batch * prompt * (8 * shape.hidden + 3 * shape.intermediate) * size
    logits = batch * spec.embed.num_embeddings * (size + 4)
    return rows + logits + _scores(spec.decoder.config, batch * shape.heads * prompt**2, size)


def _tower(spec: ModelSpec, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    """Bytes of the tower's activations, and of tensors held after it: pixels, and block outputs if they are needed."""
    config: Any = spec.base.config
    cost, vision = spec.images.cost, getattr(config, "vision_config", None)
    pixels = [tensor for name, tensor in inputs.items() if name.startswith("pixel_values")]
    # Models make a copy, in their own dtype or without empty images.
    held = 2 * sum(tensor.nbytes for name, tensor in inputs.items() if name.startswith("pixel"))
    patch = getattr(vision, "patch_size", None)
    if cost is None or patch is None:
        return 0, held
    side = patch if isinstance(patch, int) else patch[0]
    patches = sum(tensor.numel() for tensor in pixels) // (3 * side**2 * getattr(vision, "temporal_patch_size", 1))
    size = spec.dtype.itemsize
    each = cost.tokens or patches // max(1, len(inputs["input_ids"]))
    heads = getattr(vision, "num_attention_heads", 0) or getattr(vision, "num_heads", 1)
    rows = patches * (8 * cost.hidden + (3 if cost.gated else 2) * cost.intermediate) * size
    if getattr(config, "vision_feature_layer", -1) != -1:
        held += patches * (cost.layers + 1) * cost.hidden * size
    return rows + _scores(vision, patches * each * heads, size), held


def _scores(config: Any, pairs: int, size: int) -> int:
    """Bytes of logits, softmax in float32 and its copy, which only eager attention has."""
    return pairs * (2 * size + 4) if config._attn_implementation == "eager" else 0


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, or of the container that this process runs in; None if it is unknown."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    info = Path("/proc/meminfo")
    if device.type != "cpu" or not info.exists():
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", info.read_text(), re.MULTILINE)
    if found is None:
        return None
    return min([int(found[1]) * 1024, *left_in_container(Path("/sys/fs/cgroup"))])


def left_in_container(group: Path) -> list[int]:
    """Free memory within the limit of control groups (version 2, else 1); empty if there is no limit."""
    found = []
    for limit, used, details in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most, now = (group / limit).read_text().strip(), int((group / used).read_text())
            statistics = dict(line.split() for line in (group / details).read_text().splitlines())
        except (OSError, ValueError):
            continue
        # The page cache of files is freed when memory is needed.
        if most.isdigit():
            found.append(int(most) - now + int(statistics.get("inactive_file", 0)))
    return found
