"""Video-LLaVA: a tower for images and one for videos, whose frames keep the class token."""

import torch
import transformers

from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample, clip, draw_words, lay_out

SIDE = 12
FRAMES = 2


def _config():
    return transformers.VideoLlavaConfig(
        vision_config=clip(SIDE),
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    blocks, media = [[IMAGE] * 9] * images, {}
    if images:
        media["pixel_values"] = torch.randn(images, 3, SIDE, SIDE, generator=generator)
    if videos:
        media["pixel_values_videos"] = torch.randn(videos, FRAMES, 3, SIDE, SIDE, generator=generator)
        blocks[1:1] = [[VIDEO] * (FRAMES * (9 + 1))] * videos
    return Sample(lay_out(words, blocks), media)


FAMILIES = (Family("video_llava", "Video-LLaVA", _config, _sample, has_video=True),)
