"""DeepSeek-VL: SigLIP tower, in the larger model beside a SAM tower for a sharper image; Llama decoder."""

import torch
import transformers

from tests.families.prompt_layout import around, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
SAM = {
    "model_type": "sam_vision_model",
    "hidden_size": 16,
    "output_channels": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
    "window_size": 2,
    "global_attn_indexes": [1],
    "mlp_dim": 24,
}
DECODER = {"model_type": "llama", **TEXT}


def _config():
    return transformers.DeepseekVLConfig(vision_config=SIGLIP, text_config=DECODER, image_token_id=IMAGE)


def _hybrid():
    return transformers.DeepseekVLHybridConfig(
        vision_config=SIGLIP, high_res_vision_config=SAM, text_config=DECODER, image_token_id=IMAGE
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = around([[IMAGE] * 16] * images, words(text, generator))
    if not images:
        return Sample(ids)
    media = {"pixel_values": noise(images, 3, 16, 16, generator=generator)}
    if family.name == "deepseek_vl_hybrid":
        media["high_res_pixel_values"] = noise(images, 3, 64, 64, generator=generator)
    return Sample(ids, media)


FAMILIES = (
    Family("deepseek_vl", "DeepSeek-VL 1.3B", _config, _sample),
    Family("deepseek_vl_hybrid", "DeepSeek-VL 7B", _hybrid, _sample),
)
