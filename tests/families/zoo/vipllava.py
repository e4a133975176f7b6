"""ViP-LLaVA: LLaVA with features from several layers of the tower."""

import torch
import transformers

from tests.families.zoo.family import IMAGE, TEXT, Family, Sample, clip, draw_words, lay_out


def _config():
    return transformers.VipLlavaConfig(
        vision_config=clip(),
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        image_seq_length=16,
        vision_feature_layer=[-1, -2, 1],
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = lay_out(draw_words(text, generator), [[IMAGE] * 16] * images)
    return Sample(ids, {"pixel_values": torch.randn(images, 3, 16, 16, generator=generator)} if images else {})


FAMILIES = (Family("vipllava", "ViP-LLaVA", _config, _sample),)
