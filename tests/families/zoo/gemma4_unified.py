"""Gemma 4 Unified: patches are embedded without a tower; images are seen in both directions in sliding layers."""

import torch
import transformers

from tests.families.layout import around, drawn, framed, noise, token_types, words
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


def _padded(sizes, generator):
    """Pixels ``[images, patches, 48]`` and the places of patches, -1 where there is none."""
    pixels, places = torch.zeros(len(sizes), MOST, 48), torch.full((len(sizes), MOST, 2), -1)
    for i, (rows, columns) in enumerate(sizes):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        pixels[i, : rows * columns] = noise(rows * columns, 48, generator=generator).sigmoid()
        places[i, : rows * columns] = torch.stack([x, y], -1).flatten(0, 1)
    return pixels, places


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    sizes = drawn([(3, 3), (2, 4), (4, 2), (2, 2)], images, generator)
    pieces = [framed(h * w) for h, w in sizes]
    media = {}
    if images:
        media["pixel_values"], media["image_position_ids"] = _padded(sizes, generator)
    if videos:
        frames = drawn([2, 3], videos, generator)
        pieces += [[5, *framed(4, VIDEO)] * n for n in frames]
        media["pixel_values_videos"], media["video_position_ids"] = _padded([(2, 2)] * sum(frames), generator)
        media["num_frames_per_video"] = torch.tensor(frames)
    return Sample(around(pieces, said), media)


FAMILIES = (Family("gemma4_unified", "Gemma 4 Unified", _config, _sample, derive=token_types, has_video=True),)
