"""Packed towers on images and videos, measured on the untouched models. No code of the package is used.

Which patches a visual token is made of is seen by its gradient with respect to the tower's output. Attention is what
transformers' eager kernels return, written into one matrix for the whole sequence.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tests.families.zoo import FAMILIES, Sample, shared
from tests.families.zoo.family import IMAGE, VIDEO

Visual = tuple[str, int]
"""Modality, and number among the visual tokens of the batch's images or videos."""


@dataclass(frozen=True)
class Tower:
    """Where things are in a family's model, by hand.

    Attributes
    ----------
    blocks, attention : str
        The list of blocks in the base model, and the attention in a block.
    output : str
        The module of which the projector reads the output.
    film : int
        Placeholder of the tokens of a video.
    """

    blocks: str
    attention: str
    output: str
    film: int = VIDEO


PIXTRAL = Tower("vision_tower.transformer.layers", "attention", "vision_tower.transformer.layers.1")
TOWERS = {
    "qwen2_vl": Tower("visual.blocks", "attn", "visual.blocks.1"),
    "qwen2_5_vl": Tower("visual.blocks", "attn", "visual.blocks.1"),
    "qwen3_vl": Tower("visual.blocks", "attn", "visual.blocks.2"),
    "qwen3_vl_moe": Tower("visual.blocks", "attn", "visual.blocks.2"),
    "qwen2_5_omni_thinker": Tower("visual.blocks", "attn", "visual.blocks.1"),
    "qwen3_omni_moe_thinker": Tower("visual.blocks", "attn", "visual.blocks.2"),
    "cohere_compass": Tower("visual.blocks", "attn", "visual.blocks.1"),
    "cosmos3_omni": Tower("visual.blocks", "attn", "visual.blocks.2"),
    "exaone4_5": Tower("visual.blocks", "attn", "visual.blocks.1"),
    "hyperclovax_vision_v2": Tower("vision_model.blocks", "attn", "vision_model.blocks.1"),
    "glm4v": Tower("visual.blocks", "attn", "visual.post_layernorm", film=IMAGE),
    "glm46v": Tower("visual.blocks", "attn", "visual.post_layernorm", film=IMAGE),
    "glm4v_moe": Tower("visual.blocks", "attn", "visual.post_layernorm", film=IMAGE),
    "glm_ocr": Tower("visual.blocks", "attn", "visual.post_layernorm"),
    "glm_ocr-video": Tower("visual.blocks", "attn", "visual.post_layernorm", film=IMAGE),
    "mistral3": PIXTRAL,
    "mistral3-mistral4": PIXTRAL,
    "llava-pixtral": PIXTRAL,
    "lighton_ocr": Tower("vision_encoder.transformer.layers", "attention", "vision_encoder.transformer.layers.1"),
    "paddleocr_vl": Tower("visual.vision_model.encoder.layers", "self_attn", "visual.vision_model.post_layernorm"),
    "video_llama_3": Tower("vision_model.encoder.layers", "self_attn", "vision_model.post_layernorm"),
    "cosmos3_edge": Tower("visual.encoder.layers", "self_attn", "visual.post_layernorm"),
    "kimi_k25": Tower("vision_tower.layers", "attn", "vision_tower.final_layernorm"),
    "hunyuan_vl": Tower("vision_tower.layers", "self_attn", "vision_tower.layers.1"),
    "ernie4_5_vl_moe": Tower("vision_tower.blocks", "attn", "vision_tower.ln"),
}
SEPARATE = {"hunyuan_vl": (1, 2)}
"""Visual tokens that show nothing: so many for each row, and so many more."""
PAIRED = ("ernie4_5_vl_moe",)
"""Where two frames of a video become one picture."""


@dataclass(frozen=True)
class Encoded:
    """Outputs of the tower for images, or for videos.

    Attributes
    ----------
    received : tuple of Tensor
        Per block, ``[tokens]``: attention that a visual token's patches receive from the patches of its picture.
    features : Tensor
        ``[tokens, width]``: the tower's output.
    picture : list of int
        The picture of each token.
    grids : list of tuple
        Rows and columns of the visual tokens of each picture.
    """

    received: tuple[Tensor, ...]
    features: Tensor
    picture: list[int]
    grids: list[tuple[int, int]]


@cache
def batches(name: str) -> list[list[Sample]]:
    """Images of several sizes, several in a prompt, none; videos, alone and with images."""
    family = FAMILIES[name]
    found = [[family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 6)]]
    if family.has_video and family.has_both:
        found.append([family.sample(1, 6, videos=1), family.sample(0, 9, seed=3, videos=2)])
    elif family.has_video:
        found.append([family.sample(0, 6, videos=1), family.sample(0, 9, seed=3, videos=2)])
    return found


@cache
def encoded(name: str, batch: int) -> dict[str, Encoded]:
    """Tower outputs for the images and videos of a batch of `batches`."""
    return encode(name, batches(name)[batch])


def encode(name: str, samples: Sequence[Sample]) -> dict[str, Encoded]:
    """Tower outputs for the images and videos of a batch."""
    inputs, found = FAMILIES[name].batch(samples), {}
    if "pixel_values" in inputs:
        found["image"] = _encode(name, "image", inputs)
    if "pixel_values_videos" in inputs:
        found["video"] = _encode(name, "video", inputs)
    return found


def visual_tokens(name: str, samples: Sequence[Sample]) -> list[list[Visual]]:
    """The images that the placeholders of each sample stand for."""
    counts, found = {"image": 0, "video": 0}, []
    for sample in samples:
        own = []
        for token in sample.ids:
            if token not in (IMAGE, VIDEO):
                continue
            is_film = token == TOWERS[name].film and "pixel_values_videos" in sample.media
            modality = "video" if is_film else "image"
            own.append((modality, counts[modality]))
            counts[modality] += 1
        found.append(own)
    return found


def pictures(found: Mapping[str, Encoded], visual: Sequence[Visual]) -> list[list[int]]:
    """Places of a sample's visual tokens among them, picture by picture."""
    groups: dict[Visual, list[int]] = {}
    for place, (modality, number) in enumerate(visual):
        groups.setdefault((modality, found[modality].picture[number]), []).append(place)
    return list(groups.values())


def module(name: str, path: str, attention: str = "eager") -> Any:
    """A part of the base model."""
    return shared(name, attention).base_model.get_submodule(path)


def patch_grids(modality: str, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Rows and columns of the patches of each image, or frame, as they are in the inputs."""
    if "image_sizes" in inputs:
        return [(height // 4, width // 4) for height, width in inputs["image_sizes"].tolist()]
    return [(rows, columns) for frames, rows, columns in inputs[f"{modality}_grid_thw"].tolist() for _ in range(frames)]


def features_of(name: str, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
    """``[visual tokens, hidden]``: the embeddings that the untouched model puts into the prompt."""
    base = shared(name, "eager").base_model
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}[modality]
    wanted = (pixels, "image_sizes", f"{modality}_grid_thw", f"{modality}_merge_sizes")
    given = {key: inputs[key] for key in wanted if key in inputs}
    output = getattr(base, f"get_{modality}_features")(**given, return_dict=True)
    return torch.cat([entry.flatten(0, -2) for entry in output.pooler_output])


def _encode(name: str, modality: str, inputs: Mapping[str, Tensor]) -> Encoded:
    tower, grids = TOWERS[name], patch_grids(modality, inputs)
    blocks = module(name, tower.blocks)
    attentions = [getattr(block, tower.attention) for block in blocks]
    with _noting_attention(attentions) as noted, _noting_output(name) as made:
        tokens = len(features_of(name, modality, inputs))
    merge = _members(name, modality, inputs).detach()
    received = tuple(merge @ _received(weights, grids) for weights in noted)
    shown = grids[::2] if name in PAIRED and modality == "video" else grids
    side, more = _side(name, shown, tokens), SEPARATE.get(name, (0, 0))
    squares = [(rows // side, columns // side) for rows, columns in shown]
    picture = [i for i, (r, c) in enumerate(squares) for _ in range(r * (c + more[0]) + more[1])]
    assert len(picture) == tokens
    keep = inputs.get("video_compression_mask", torch.ones(tokens, dtype=torch.bool))
    keep = keep if modality == "video" else torch.ones(tokens, dtype=torch.bool)
    return Encoded(
        tuple(scores[keep] for scores in received),
        (merge @ made[0])[keep],
        [number for number, stays in zip(picture, keep.tolist(), strict=True) if stays],
        squares,
    )


def _side(name: str, grids: Sequence[tuple[int, int]], tokens: int) -> int:
    """Side of the squares of patches that make a visual token, by their number."""
    more = SEPARATE.get(name, (0, 0))
    return next(s for s in (1, 2, 3) if sum((r // s) * (c // s + more[0]) + more[1] for r, c in grids) == tokens)


def _received(weights: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
    """Mean over all rows of each picture of the attention matrix ``[patches, patches]``."""
    found, first = [], 0
    for rows, columns in grids:
        own = slice(first, first + rows * columns)
        others = weights[own].clone()
        others[:, own] = 0
        assert others.abs().max() == 0
        found.append(weights[own, own].mean(0))
        first += rows * columns
    assert first == len(weights)
    return torch.cat(found)


def _members(name: str, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
    """``[visual tokens, patches]``: the mean over the patches that a token depends on; NaN where it does on none."""
    leaves: list[Tensor] = []

    def cut(_: Any, args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[0]

    handle = module(name, TOWERS[name].output).register_forward_hook(cut)
    try:
        with torch.enable_grad():
            features = features_of(name, modality, inputs)
            weights = torch.linspace(1, 2, features.shape[1])
            slopes = [
                torch.autograd.grad(token @ weights, leaves[0], retain_graph=True, materialize_grads=True)[0]
                if token.requires_grad
                else torch.zeros_like(leaves[0])
                for token in features
            ]
    finally:
        handle.remove()
    members = (torch.stack(slopes).flatten(1, -2).abs().amax(-1) > 0).float()
    return members / members.sum(1, keepdim=True)


@contextmanager
def _noting_output(name: str) -> Iterator[list[Tensor]]:
    """The tower's output, ``[patches, width]``."""
    made: list[Tensor] = []
    handle = module(name, TOWERS[name].output).register_forward_hook(
        lambda _, args, output: made.append(output.detach().flatten(0, -2))
    )
    try:
        yield made
    finally:
        handle.remove()


@contextmanager
def _noting_attention(attentions: Sequence[Any]) -> Iterator[list[Tensor]]:
    """The attention of each module over the whole sequence, mean over heads: complete when the context is left."""
    source = sys.modules[type(attentions[0]).__module__]
    own = source.eager_attention_forward
    calls: dict[int, list[Tensor]] = {id(attention): [] for attention in attentions}

    def noting(attention: Any, *args: Any, **kwargs: Any) -> Any:
        output = own(attention, *args, **kwargs)
        calls[id(attention)].append(output[1].detach()[0].float().mean(0))
        return output

    noted: list[Tensor] = []
    source.eager_attention_forward = noting
    try:
        yield noted
    finally:
        source.eager_attention_forward = own
    noted += [torch.block_diag(*calls[id(attention)]) for attention in attentions]
