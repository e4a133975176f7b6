"""InternVL: an image is several tiles, 2 x 2 patches of which make a token; frames of a video are images."""

from itertools import chain

import torch
import transformers

from tests.families.zoo.family import (
    END,
    IMAGE,
    START,
    TEXT,
    Family,
    Sample,
    choose,
    draw_words,
    lay_out,
)

SIDE = 24
TILE = 9
"""Tokens of a tile of 6 x 6 patches."""
NEWLINE, FRAME = 140, 141
FRAMES = 2


def _config():
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [SIDE, SIDE],
        "patch_size": [4, 4],
        "layer_scale_init_value": 1.0,
    }
    return transformers.InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=IMAGE,
        image_seq_length=TILE,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    tiles = [choose((1, 2, 3), generator) for _ in range(images)]
    blocks = [[START, *[IMAGE] * (TILE * count), END] for count in tiles]
    for film in range(videos):
        frames = [[FRAME, *draw_words(1, generator), START, *[IMAGE] * TILE, END, NEWLINE] for _ in range(FRAMES)]
        blocks.insert(1 + film, list(chain(*frames))[:-1])
    pixels = torch.randn(sum(tiles) + FRAMES * videos, 3, SIDE, SIDE, generator=generator)
    return Sample(lay_out(words, blocks), {"pixel_values": pixels} if images or videos else {})


FAMILIES = (Family("internvl", "InternVL 3", _config, _sample, has_video=True),)
