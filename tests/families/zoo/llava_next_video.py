"""LLaVA-NeXT-Video: images as in LLaVA-NeXT; frames of a video, pooled 2 x 2."""

import torch
import transformers

from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample, choose, clip, draw_words, lay_out
from tests.families.zoo.llava_next import tiled

SIDE = 16
"""Pixels of a tile, 4 patches."""
GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
SIZES = {
    (16, 32): (3, 16 + 4 * 8 + 4),
    (8, 48): (3, 16 + 2 * 8 + 2),
    (48, 8): (3, 16 + 8 * 2 + 8),
}
FRAMES = 3


def _config():
    return transformers.LlavaNextVideoConfig(
        vision_config=clip(SIDE),
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=GRIDS,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    sizes = [choose(list(SIZES), generator) for _ in range(images)]
    blocks = [[IMAGE] * SIZES[size][1] for size in sizes]
    media = tiled(sizes, [SIZES[size][0] for size in sizes], generator, SIDE) if images else {}
    if videos:
        films = torch.randn(videos, FRAMES, 3, SIDE, SIDE, generator=generator)
        media = {**media, "pixel_values_videos": films}
        blocks[1:1] = [[VIDEO] * (FRAMES * 4)] * videos
    return Sample(lay_out(words, blocks), media)


FAMILIES = (Family("llava_next_video", "LLaVA-NeXT-Video", _config, _sample, has_video=True),)
