"""HyperCLOVA X SEED Think: Qwen2.5-VL's tower, 1-D RoPE, norms behind attention and feed-forward network."""

import torch
import transformers

from tests.families.layout import around, drawn, framed, merged, patches, words
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
    grids = drawn([(1, 8, 8), (1, 4, 8), (1, 8, 4), (1, 4, 4)], images, generator)
    films = drawn([(2, 4, 4), (3, 4, 4)], videos, generator)
    pieces = [framed(n) for n in merged(grids, 2)] + [framed(n, VIDEO) for n in merged(films, 2)]
    media = {}
    if images:
        media["pixel_values"] = patches(grids, 96, generator=generator)
        media["image_grid_thw"] = torch.tensor(grids)
    if videos:
        media["pixel_values_videos"] = patches(films, 96, generator=generator)
        media["video_grid_thw"] = torch.tensor(films)
    return Sample(around(pieces, said), media)


FAMILIES = (Family("hyperclovax_vision_v2", "HyperCLOVA X SEED Think", _config, _sample, has_video=True),)
