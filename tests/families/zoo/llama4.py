"""Llama 4: tiles with separators and a last global view, class token behind the patches, chunked and NoPE layers."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, Family, Sample

GLOBAL, TILE_X, TILE_Y = 154, 155, 156
TOKENS = 4


def _config():
    return transformers.Llama4Config(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_output_dim": 24,
            "projector_input_dim": 24,
            "projector_output_dim": 24,
        },
        # Layer 3 has no RoPE and sees everything; the others see chunks.
        text_config={
            **TEXT,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 256,
        },
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
    )


def _image(rows: int, columns: int) -> list[int]:
    tile, ids = [IMAGE] * TOKENS, [START]
    if rows * columns > 1:
        for _ in range(rows):
            for x in range(columns):
                ids += tile if x == columns - 1 else [*tile, TILE_X]
            ids.append(TILE_Y)
    return [*ids, GLOBAL, *tile, END]


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ratios = drawn([(1, 1), (1, 2), (2, 1), (2, 2)], images, generator)
    ids = around([_image(*ratio) for ratio in ratios], words(text, generator))
    tiles = sum(rows * columns + (rows * columns > 1) for rows, columns in ratios)
    return Sample(ids, {"pixel_values": noise(tiles, 3, 16, 16, generator=generator)} if images else {})


FAMILIES = (Family("llama4", "Llama 4", _config, _sample),)
