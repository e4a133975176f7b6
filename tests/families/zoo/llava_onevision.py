"""LLaVA-OneVision: tiles if an image is alone in its prompt, an overview each if there are several; videos, pooled."""

import torch
import transformers

from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample, choose, draw_words, lay_out, siglip
from tests.families.zoo.llava_next import GRIDS, SIDE, tiled

SIZES = {
    (12, 24): (3, 9 + 3 * 6 + 3),
    (6, 36): (3, 9 + 1 * 6 + 1),
    # Four tiles are more than two: 6 x 6 tokens are shrunk to 4 x 4, 6 x 4 to 5 x 3.
    (24, 24): (5, 9 + 4 * 4 + 4),
    (24, 17): (5, 9 + 5 * 3 + 5),
}
"""As in LLaVA-NeXT."""
SEVERAL = (1, 9 + 1)
FRAMES = 3


def _config():
    return transformers.LlavaOnevisionConfig(
        vision_config={**siglip(SIDE), "vision_use_head": False},
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=GRIDS,
        vision_aspect_ratio="anyres_max_2",
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    sizes = [choose(list(SIZES), generator) for _ in range(images)]
    plans = [SIZES[size] if images == 1 else SEVERAL for size in sizes]
    blocks = [[IMAGE] * tokens for _, tokens in plans]
    media = {}
    if images:
        media = {**tiled(sizes, [tiles for tiles, _ in plans], generator), "batch_num_images": torch.tensor([images])}
    if videos:
        media["pixel_values_videos"] = torch.randn(videos, FRAMES, 3, SIDE, SIDE, generator=generator)
        blocks[1:1] = [[VIDEO] * (FRAMES * 4 + 1)] * videos
    return Sample(lay_out(words, blocks), media)


FAMILIES = (Family("llava_onevision", "LLaVA-OneVision", _config, _sample, has_video=True),)
