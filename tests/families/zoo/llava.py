"""LLaVA: CLIP or SigLIP tower, one size of image."""

import torch
import transformers

from tests.families.zoo.family import IMAGE, TEXT, Family, Sample, clip, draw_words, lay_out, siglip


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


FAMILIES = (
    Family("llava", "LLaVA 1.5", lambda: _config(clip(), "default"), _sample),
    Family("llava-siglip", "LLaVA with SigLIP", lambda: _config(siglip(), "full"), _sample),
)
