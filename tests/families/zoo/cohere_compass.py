"""Cohere Compass: Qwen3-VL's tower and DeepStack; sliding layers with M-RoPE, full layers without any."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, token_types, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample


def _config():
    return transformers.CohereCompassConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config={
            **TEXT,
            "logit_scale": 0.5,
            "sliding_window": 40,
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [2, 1, 1],
                    "mrope_interleaved": True,
                },
                "full_attention": None,
            },
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    grids, _, media = packed(images, 0, (96,), generator)
    ids = around([framed(n) for n in merged(grids, 2)], words(text, generator))
    return Sample(ids, media)


FAMILIES = (Family("cohere_compass", "Cohere Compass", _config, _sample, derive=token_types),)
