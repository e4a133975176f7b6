"""HunyuanOCR: a newline behind each row and a frame of learned tokens, all visual; RoPE with four axes."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, packed, token_types, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, Family, Sample


def _config():
    return transformers.HunYuanVLConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 32,
            "max_image_size": 32,
            "text_hidden_size": 32,
        },
        text_config={
            **TEXT,
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 10000.0,
                "alpha": 1000.0,
                "factor": 1.0,
                "mrope_section": [1, 1, 1, 1],
            },
        },
        image_token_id=IMAGE,
        im_start_id=START,
        im_end_id=END,
        im_newline_id=154,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    grids, _, media = packed(images, 0, (48,), generator)
    ids = around([framed(h // 2 * (w // 2 + 1) + 2) for _, h, w in grids], words(text, generator))
    return Sample(ids, media)


FAMILIES = (Family("hunyuan_vl", "HunyuanOCR", _config, _sample, derive=token_types),)
