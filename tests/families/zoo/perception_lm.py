"""Perception LM: tower from timm (here one convolution) with a class token, tiles and frames pooled 2 by 2."""

import torch
import transformers

from tests.families.prompt_layout import around, noise, words
from tests.families.timm_stand_in import WIDTH, ClassTowerConfig
from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample

TOKENS, TILES, FRAMES = 4, 3, 2


def _config():
    return transformers.PerceptionLMConfig(
        vision_config=ClassTowerConfig(model_args={"embed_dim": WIDTH}),
        text_config={"model_type": "llama", **TEXT},
        projector_pooling_ratio=2,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    pieces = [[IMAGE] * (TOKENS * TILES)] * images + [[VIDEO] * (TOKENS * FRAMES)] * videos
    media = {}
    if images:
        media["pixel_values"] = noise(images, TILES, 3, 16, 16, generator=generator)
    if videos:
        media["pixel_values_videos"] = noise(videos, FRAMES, 3, 16, 16, generator=generator)
    return Sample(around(pieces, said), media)


FAMILIES = (Family("perception_lm", "Perception LM", _config, _sample, has_video=True),)
