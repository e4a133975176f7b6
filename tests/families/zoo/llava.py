"""LLaVA: CLIP or SigLIP tower, one size of image."""

import torch
import transformers

from tests.families.zoo.family import BOS, IMAGE, TEXT, Family, Sample

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 16,
}
SIGLIP = {**CLIP, "model_type": "siglip_vision_model"}


def _config(vision, strategy):
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        image_seq_length=16,
        vision_feature_select_strategy=strategy,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = torch.randint(3, 140, (text,), generator=generator).tolist()
    ids = [BOS, *words[:3]]
    for i in range(images):
        ids += [IMAGE] * 16
        if i % 2 == 1:
            ids += words[3:4]
    ids += words[3:]
    return Sample(ids, {"pixel_values": torch.randn(images, 3, 16, 16, generator=generator)} if images else {})


FAMILIES = (
    Family("llava", "LLaVA 1.5", lambda: _config(CLIP, "default"), _sample),
    Family("llava-siglip", "LLaVA with SigLIP", lambda: _config(SIGLIP, "full"), _sample),
)
