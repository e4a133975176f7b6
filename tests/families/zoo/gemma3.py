"""Gemma 3: layers with and without a sliding window, and images whose tokens see each other in both directions."""

import torch
import transformers

from tests.families.zoo.family import END, IMAGE, START, TEXT, Family, Sample, draw_words, lay_out, siglip

NEWLINES = 140
SIDE = 24
"""Pixels of an image: 6 x 6 patches, pooled to 3 x 3 tokens."""


def _config(window: int):
    text = {
        **TEXT,
        "model_type": "gemma3_text",
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": window,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    return transformers.Gemma3Config(
        vision_config={**siglip(SIDE), "vision_use_head": False},
        text_config=text,
        mm_tokens_per_image=9,
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = lay_out(draw_words(text, generator), [[NEWLINES, START, *[IMAGE] * 9, END, NEWLINES]] * images)
    return Sample(ids, {"pixel_values": torch.randn(images, 3, SIDE, SIDE, generator=generator)} if images else {})


def _token_types(ids: torch.Tensor, later: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    return {"token_type_ids": (ids == IMAGE).long()}


FAMILIES = (
    Family("gemma3", "Gemma 3", lambda: _config(16), _sample, derive=_token_types),
    Family("gemma3-wide", "Gemma 3, its window never reached", lambda: _config(200), _sample, derive=_token_types),
)
