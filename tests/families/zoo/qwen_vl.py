"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL: images and videos of any size, places in time, height and width (M-RoPE)."""

from itertools import chain
from typing import Any

import torch
import transformers

from tests.families.zoo.family import (
    END,
    IMAGE,
    START,
    TEXT,
    VIDEO,
    Family,
    Media,
    Sample,
    choose,
    draw_words,
    lay_out,
    modality_types,
)

IMAGES = ((1, 4, 6), (1, 8, 4), (1, 6, 10), (1, 6, 6))
VIDEOS = ((2, 4, 4), (3, 4, 6))
"""Patches of each in time, height and width; 2 x 2 of them make a token."""
TOKENS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
VISION = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "in_channels": 3,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
}


def _qwen2():
    vision = {**VISION, "embed_dim": 16, "hidden_size": TEXT["hidden_size"], "mlp_ratio": 2}
    return transformers.Qwen2VLConfig(vision_config=vision, text_config=_text(), **TOKENS)


def _qwen2_5():
    vision = {
        **VISION,
        "hidden_size": 16,
        "out_hidden_size": TEXT["hidden_size"],
        "intermediate_size": 24,
        # 2 x 2 tokens: all grids but the smallest have windows that are cut off, and an order of their own.
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    return transformers.Qwen2_5_VLConfig(vision_config=vision, text_config=_text(), **TOKENS)


def _qwen3(config_class: type, **text: Any):
    vision = {
        **VISION,
        "depth": 3,
        "hidden_size": 16,
        "out_hidden_size": TEXT["hidden_size"],
        "intermediate_size": 24,
        "num_position_embeddings": 36,
        # DeepStack: the first layers of the decoder are given features of earlier blocks, too.
        "deepstack_visual_indexes": [0, 1],
    }
    return config_class(vision_config=vision, text_config=_text(head_dim=8, **text), **TOKENS)


def _text(**further: Any) -> dict[str, Any]:
    return {**TEXT, "rope_parameters": ROPE, **further}


def _patches(grids: list[tuple[int, int, int]], generator: torch.Generator) -> torch.Tensor:
    """``[patches, channels x time x height x width]``."""
    return torch.randn(sum(t * h * w for t, h, w in grids), 3 * 2 * 4 * 4, generator=generator)


def draw_media(images: int, videos: int, generator: torch.Generator) -> tuple[list, list, Media]:
    """Sizes of images, sizes of videos, and their patches."""
    pictures = [choose(IMAGES, generator) for _ in range(images)]
    films = [choose(VIDEOS, generator) for _ in range(videos)]
    media = {}
    if images:
        media |= {"pixel_values": _patches(pictures, generator), "image_grid_thw": torch.tensor(pictures)}
    if videos:
        media |= {"pixel_values_videos": _patches(films, generator), "video_grid_thw": torch.tensor(films)}
    return pictures, films, media


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    pictures, films, media = draw_media(images, videos, generator)
    blocks = [[START, *[IMAGE] * (h * w // 4), END] for _, h, w in pictures]
    blocks[1:1] = [[START, *[VIDEO] * (t * h * w // 4), END] for t, h, w in films]
    if films and family.name == "qwen2_5_vl":
        # Seconds between two time steps.
        seconds = [choose((0.5, 1.0, 2.0), generator) for _ in films]
        media = {**media, "second_per_grid_ts": torch.tensor(seconds)}
    return Sample(lay_out(words, blocks), media)


def _sample_with_timestamps(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    """In Qwen3-VL, each time step of a video is a block with its time before it, in words."""
    words = draw_words(text, generator)
    pictures, films, media = draw_media(images, videos, generator)
    blocks = [[START, *[IMAGE] * (h * w // 4), END] for _, h, w in pictures]
    for film, (t, h, w) in enumerate(films):
        steps = [[*draw_words(2, generator), START, *[VIDEO] * (h * w // 4), END] for _ in range(t)]
        blocks.insert(1 + film, [START, *chain(*steps), END])
    return Sample(lay_out(words, blocks), media)


FAMILIES = (
    Family("qwen2_vl", "Qwen2-VL", _qwen2, _sample, derive=modality_types, has_video=True),
    Family("qwen2_5_vl", "Qwen2.5-VL", _qwen2_5, _sample, derive=modality_types, has_video=True),
    Family(
        "qwen3_vl",
        "Qwen3-VL",
        lambda: _qwen3(transformers.Qwen3VLConfig),
        _sample_with_timestamps,
        derive=modality_types,
        has_video=True,
    ),
    Family(
        "qwen3_vl_moe",
        "Qwen3-VL with experts",
        lambda: _qwen3(transformers.Qwen3VLMoeConfig, **EXPERTS),
        _sample_with_timestamps,
        derive=modality_types,
        has_video=True,
    ),
)
