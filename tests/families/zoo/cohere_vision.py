"""Aya Vision and Command A Vision: tiles, 2 x 2 patches of which make a token; full layers without positions."""

from itertools import chain
from typing import Any

import torch
import transformers

from tests.families.zoo.family import END, IMAGE, START, TEXT, Family, Sample, choose, draw_words, lay_out, siglip

LINE_BREAK, WHOLE, FIRST_TILE = 140, 141, 142
SIDE = 24
TILE = 9


def _config(config_class: type, window: int, **further: Any):
    text = {
        **TEXT,
        "model_type": "cohere2",
        "sliding_window": window,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "logit_scale": 1.0,
    }
    return config_class(vision_config={**siglip(SIDE), "vision_use_head": False}, text_config=text, **further)


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    tiles = [choose((1, 3, 4), generator) for _ in range(images)]
    block = _named if family.name.startswith("aya") else _broken
    ids = lay_out(words, [block(count) for count in tiles])
    return Sample(ids, {"pixel_values": torch.randn(sum(tiles), 3, SIDE, SIDE, generator=generator)} if images else {})


def _named(tiles: int) -> list[int]:
    """Numbered tiles, and the whole image at the end."""
    numbered = chain(*([FIRST_TILE + i, *[IMAGE] * TILE] for i in range(tiles - 1)))
    return [START, *numbered, WHOLE, *[IMAGE] * TILE, END]


def _broken(tiles: int) -> list[int]:
    """A line break behind each tile."""
    return [START, *[*[IMAGE] * TILE, LINE_BREAK] * tiles, END]


FAMILIES = (
    Family(
        "aya_vision",
        "Aya Vision",
        lambda: _config(transformers.AyaVisionConfig, 300, image_token_index=IMAGE, alignment_intermediate_size=24),
        _sample,
    ),
    Family(
        "cohere2_vision",
        "Command A Vision",
        lambda: _config(transformers.Cohere2VisionConfig, 16, image_token_id=IMAGE, alignment_intermediate_size=24),
        _sample,
    ),
)
