"""PaddleOCR-VL: NaViT tower, 2 by 2 patches merged by the projector, M-RoPE."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, token_types, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample


def _config():
    return transformers.PaddleOCRVLConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        text_config={
            **TEXT,
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    grids, _, media = packed(images, 0, (3, 4, 4), generator)
    ids = around([framed(n) for n in merged(grids, 2)], words(text, generator))
    return Sample(ids, media)


FAMILIES = (Family("paddleocr_vl", "PaddleOCR-VL", _config, _sample, derive=token_types),)
