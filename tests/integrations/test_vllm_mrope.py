"""The parts of the vLLM plug-in for Qwen-VL that need no vLLM: packed towers, and positions with three axes."""

import pytest
import torch
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

import vistrim
from tests.closeness import close
from tests.families.zoo import FAMILIES, shared
from tests.families.zoo.family import IMAGE
from tests.tiny import generate
from vistrim.errors import UnsupportedGenerationError
from vistrim.integrations.vllm.picking import count, merged
from vistrim.integrations.vllm.places import BASE, MARKS, marks_of, moved, pick_with_marks, places_of, shape_of
from vistrim.integrations.vllm.tower import PackedTowerReader
from vistrim.methods.base.notation import parse_method

SELECTORS = (
    "fastervlm:keep=5,positions=original",
    "fastervlm:keep=1.0,positions=original",
    "vtc-cls:keep=5,first_layer=0,positions=original",
    "visionzip:dominant=3,contextual=2,positions=original",
    "divprune:keep=0.5,positions=original",
    "pool:keep=4",
)


class Kernel(nn.Module):
    """Stands for the attention kernel of a tower of vLLM, whose inputs are read."""

    def forward(self, query, key, cu_seqlens):
        """Compute nothing."""


def call_kernel(kernel, attention, args, kwargs):
    """Call the kernel as an attention layer of vLLM does, before a layer of transformers runs."""
    hidden = args[0] if args else kwargs["hidden_states"]
    query, key, _ = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *kwargs["position_embeddings"])
    kernel(query=query[None], key=key[None], cu_seqlens=kwargs["cu_seqlens"])


def call_norm(norm, found):
    """Call the norm behind the last block as a tower of vLLM does."""
    norm(found[:, None])


def order_of(config, rows, columns):
    """Places of the visual tokens in the order of the tower."""
    if not hasattr(config, "window_size"):
        return torch.arange(rows * columns // 4)
    grid = torch.tensor([[1, rows, columns]])
    return get_vision_window_index(grid, config.spatial_merge_size, config.window_size, config.patch_size)[0].argsort()


def encoded(model, method, media):
    """Trimmed embeddings and marks of each image, made as the plug-in makes them."""
    tower, config = model.base_model.visual, model.config.vision_config
    kernels, norm = [Kernel() for _ in tower.blocks], nn.Identity()
    reader = PackedTowerReader(method, kernels, norm)
    hooks = [
        block.attn.register_forward_pre_hook(
            lambda module, args, kwargs, kernel=kernel: call_kernel(kernel, module, args, kwargs), with_kwargs=True
        )
        for block, kernel in zip(tower.blocks, kernels, strict=True)
    ]
    hooks.append(tower.blocks[-1].register_forward_hook(lambda module, args, found: call_norm(norm, found)))
    found = tower(media["pixel_values"], grid_thw=media["image_grid_thw"])
    for hook in hooks:
        hook.remove()
    grids = [(rows, columns) for _, rows, columns in media["image_grid_thw"].tolist()]
    sizes = [rows * columns for rows, columns in grids]
    # vLLM has the features for further layers (DeepStack) behind the embeddings.
    embeddings = torch.cat([found.pooler_output, *(getattr(found, "deepstack_features", None) or ())], 1)
    for patches, part, vision in zip(grids, embeddings.split([n // 4 for n in sizes]), reader.take(sizes), strict=True):
        grid = patches[0] // 2, patches[1] // 2
        values = merged(vision, 4, order_of(config, *patches))
        picked = pick_with_marks(method, grid, part, config.out_hidden_size, values)
        assert len(picked) == count(method, [shape_of(*grid)])
        yield grid, picked


def trimmed(model, method, sample):
    """Input of the decoder, visual tokens, features for further layers, positions and those of the answer."""
    ids, hidden = torch.tensor(sample.ids), model.config.vision_config.out_hidden_size
    starts = [i for i, token in enumerate(sample.ids) if token == IMAGE and sample.ids[i - 1] != IMAGE]
    inputs, images, parts, end = [], [], [], 0
    for start, (grid, picked) in zip(starts, encoded(model, method, sample.media), strict=True):
        inputs += [model.get_input_embeddings()(ids[end:start]), picked[:, :hidden]]
        images.append((sum(map(len, inputs)) - len(picked), len(picked), max(grid)))
        parts.append(picked)
        end = start + grid[0] * grid[1]
    inputs.append(model.get_input_embeddings()(ids[end:]))
    positions, delta = places_of(sum(map(len, inputs)), images)
    visual = torch.cat([torch.arange(first, first + length) for first, length, _ in images])
    for _ in range(2):
        # The second time, nothing changes.
        positions[:, visual] = moved(positions[:, visual], torch.cat(parts)[:, -MARKS:])
    return torch.cat(inputs), visual, torch.cat(parts)[:, hidden:-MARKS], positions, delta


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_the_same_input_of_the_decoder_as_in_transformers(name):
    family, model = FAMILIES[name], shared(name)
    sample, decoder = family.sample(images=2, text=6, seed=1), model.get_decoder()
    for notation in SELECTORS:
        method, entered, left = parse_method(notation), [], []
        with vistrim.trim(model, method):
            hooks = [
                layer.register_forward_pre_hook(
                    lambda module, args, kwargs, entered=entered: entered.append(
                        (args[0], *kwargs["position_embeddings"])
                    ),
                    with_kwargs=True,
                )
                for layer in decoder.layers
            ]
            hooks += [
                layer.register_forward_hook(lambda module, args, found, to=left: to.append(found))
                for layer in decoder.layers
            ]
            generate(model, family.batch([sample]), 2)
            for hook in hooks:
                hook.remove()
        inputs, visual, features, positions, delta = trimmed(model, method, sample)
        assert close(inputs, entered[0][0][0]), notation
        for layer, part in enumerate(features.split(inputs.shape[1], 1) if features.numel() else ()):
            assert close(left[layer][0, visual] + part, entered[layer + 1][0][0, visual]), notation
        answer = torch.full((3, 1, 1), len(inputs) + delta)
        for places, (_, *expected) in ((positions[:, None], entered[0]), (answer, entered[len(decoder.layers)])):
            found = decoder.rotary_emb(inputs[None], places)
            assert all(close(mine, its) for mine, its in zip(found, expected, strict=True)), notation


def test_marks_are_exact_in_half_precision():
    rows, columns = 2, 3 * BASE
    for dtype in (torch.float16, torch.bfloat16):
        marks = marks_of(rows, columns).to(dtype)[[0, columns + 5, -1]]
        places = moved(torch.full((3, 3), 7), marks)
        assert places.tolist() == [[7] * 3, [7, 8, 8], [7, 12, 6 + columns]]


def test_a_kernel_without_the_borders_of_images_is_named():
    kernels = [Kernel(), Kernel()]
    reader = PackedTowerReader(vistrim.FasterVLM(4, "original"), kernels, nn.Identity())
    states = torch.zeros(1, 8, 2, 4)
    with pytest.raises(UnsupportedGenerationError, match="mm-encoder-attn-backend"):
        kernels[1](query=states, key=states, cu_seqlens=torch.tensor([0, 64]))
    with pytest.raises(UnsupportedGenerationError, match="compiled graph"):
        reader.take([8])
