"""LLaVA: CLIP or SigLIP tower, one size of image; or Pixtral's tower, and images of any size."""

import torch
import transformers

from tests.families.zoo.family import (
    END,
    IMAGE,
    TEXT,
    Family,
    Sample,
    choose,
    clip,
    concatenated,
    draw_words,
    lay_out,
    siglip,
)

BREAK = 140
SIZES = ((8, 12), (4, 16), (12, 8), (12, 12))
"""Height and width; 4 x 4 pixels make a token."""


def _config(vision, strategy):
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        image_seq_length=16,
        vision_feature_select_strategy=strategy,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = lay_out(draw_words(text, generator), [[IMAGE] * 16] * images)
    return Sample(ids, {"pixel_values": torch.randn(images, 3, 16, 16, generator=generator)} if images else {})


def _pixtral():
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    }
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "mistral", **TEXT, "head_dim": 8, "sliding_window": None},
        image_token_index=IMAGE,
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def _pixtral_sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    sizes = [choose(SIZES, generator) for _ in range(images)]
    rows = [[*[IMAGE] * (width // 4), BREAK] for _, width in sizes]
    blocks = [[*(row * (height // 4))[:-1], END] for row, (height, _) in zip(rows, sizes, strict=True)]
    pictures = [{"pixel_values": torch.randn(1, 3, *size, generator=generator)} for size in sizes]
    media = {**concatenated(pictures), "image_sizes": torch.tensor(sizes)} if images else {}
    return Sample(lay_out(words, blocks), media)


FAMILIES = (
    Family("llava", "LLaVA 1.5", lambda: _config(clip(), "default"), _sample),
    Family("llava-siglip", "LLaVA with SigLIP", lambda: _config(siglip(), "full"), _sample),
    Family("llava-pixtral", "Pixtral", _pixtral, _pixtral_sample),
)
