"""Gemma 4 Unified: patches are embedded without a tower; images are seen in both directions in sliding layers."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, padded, token_types, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample

MOST = 9
"""Patches that every image is padded to."""


def _config():
    return transformers.Gemma4UnifiedConfig(
        vision_config={
            "patch_size": 2,
            "pooling_kernel_size": 2,
            "mm_embed_dim": 16,
            "mm_posemb_size": 8,
            "output_proj_dims": 16,
        },
        text_config={
            **TEXT,
            "head_dim": 8,
            "global_head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 40,
        },
        audio_config=None,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        boi_token_id=START,
        eoi_token_id=END,
        audio_token_id=157,
        boa_token_id=158,
        eoa_token_index=159,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    sizes = drawn([(3, 3), (2, 4), (4, 2), (2, 2)], images, generator)
    pieces = [framed(h * w) for h, w in sizes]
    media = {}
    if images:
        media["pixel_values"], media["image_position_ids"] = padded(sizes, MOST, 48, generator)
    if videos:
        frames = drawn([2, 3], videos, generator)
        pieces += [[5, *framed(4, VIDEO)] * n for n in frames]
        media["pixel_values_videos"], media["video_position_ids"] = padded([(2, 2)] * sum(frames), MOST, 48, generator)
        media["num_frames_per_video"] = torch.tensor(frames)
    return Sample(around(pieces, said), media)


FAMILIES = (Family("gemma4_unified", "Gemma 4 Unified", _config, _sample, derive=token_types, has_video=True),)
