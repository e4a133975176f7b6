"""HyperCLOVA X SEED Think: Qwen2.5-VL's tower, 1-D RoPE, norms behind attention and feed-forward network."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, words
from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample


def _config():
    return transformers.HyperCLOVAXVisionV2Config(
        vision_config={
            "model_type": "qwen2_5_vl_vision",
            "depth": 2,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config={"model_type": "hyperclovax", **TEXT, "residual_multiplier": 0.8, "embedding_multiplier": 1.5},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    grids, films, media = packed(images, videos, (96,), generator)
    pieces = [framed(n) for n in merged(grids, 2)] + [framed(n, VIDEO) for n in merged(films, 2)]
    return Sample(around(pieces, said), media)


FAMILIES = (Family("hyperclovax_vision_v2", "HyperCLOVA X SEED Think", _config, _sample, has_video=True),)
