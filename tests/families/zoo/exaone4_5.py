"""EXAONE 4.5: Qwen2.5-VL-like tower; sliding layers with RoPE and full layers without, norms behind the blocks."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, words
from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample


def _config():
    return transformers.Exaone4_5_Config(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "num_heads": 2,
            "num_key_value_heads": 1,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config={
            "model_type": "exaone4",
            **TEXT,
            "sliding_window": 40,
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    grids, films, media = packed(images, videos, (96,), generator)
    pieces = [framed(n) for n in merged(grids, 2)] + [framed(n, VIDEO) for n in merged(films, 2)]
    return Sample(around(pieces, said), media)


FAMILIES = (Family("exaone4_5", "EXAONE 4.5", _config, _sample, has_video=True),)
