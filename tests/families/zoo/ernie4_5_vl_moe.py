"""ERNIE 4.5 VL: experts of their own for visual tokens, so that every layer is told which tokens are visual."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, token_types, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample

VIDEO_START, VIDEO_END = 154, 155


def _config():
    return transformers.Ernie4_5_VLMoeConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
        },
        text_config={
            **TEXT,
            "moe_intermediate_size": [16, 12],
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_num_shared_experts": 1,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
        image_token_id=IMAGE,
        image_start_token_id=START,
        image_end_token_id=END,
        video_token_id=VIDEO,
        video_start_token_id=VIDEO_START,
        video_end_token_id=VIDEO_END,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    grids, films, media = packed(images, videos, (48,), generator, lengths=(2, 4))
    # Two frames of a video become one.
    shown = [[VIDEO_START, *[VIDEO] * (n // 2), VIDEO_END] for n in merged(films, 2)]
    return Sample(around([framed(n) for n in merged(grids, 2)] + shown, said), media)


def _types(ids, later=None):
    """For the experts, start and end tokens are visual too."""
    film = (ids == VIDEO) | (ids == VIDEO_START) | (ids == VIDEO_END)
    image = (ids == IMAGE) | (ids == START) | (ids == END)
    return token_types(ids) | {"moe_mm_token_type_ids": image.int() + 2 * film.int()}


FAMILIES = (Family("ernie4_5_vl_moe", "ERNIE 4.5 VL", _config, _sample, derive=_types, has_video=True),)
