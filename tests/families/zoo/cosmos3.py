"""Cosmos 3 Edge (SigLIP 2 tower on grids) and Cosmos 3 Omni (Qwen3-VL's parts), both with M-RoPE."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, packed, token_types, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample

MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}


def _edge():
    return transformers.Cosmos3EdgeConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
            "num_patches": 64,
        },
        text_config={**TEXT, "head_dim": 8, "rope_parameters": MROPE},
        projector_hidden_size=24,
        **TOKENS,
    )


def _omni():
    return transformers.Cosmos3OmniConfig(
        vision_config={
            "model_type": "qwen3_vl_vision",
            "depth": 3,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        text_config={
            "model_type": "qwen3_vl_text",
            **TEXT,
            "head_dim": 8,
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
        },
        **TOKENS,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    width = 48 if family.name == "cosmos3_edge" else 96
    said = words(text, generator)
    grids, films, media = packed(images, videos, (width,), generator)
    pieces = [framed(h * w // 4) for _, h, w in grids]
    # A video is a row of frames, each behind its time.
    pieces += [[6, *framed(h * w // 4, VIDEO)] * t for t, h, w in films]
    return Sample(around(pieces, said), media)


FAMILIES = (
    Family("cosmos3_edge", "Cosmos 3 Edge", _edge, _sample, derive=token_types, has_video=True),
    Family("cosmos3_omni", "Cosmos 3 Omni", _omni, _sample, derive=token_types, has_video=True),
)
