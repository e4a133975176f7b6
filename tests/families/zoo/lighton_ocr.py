"""LightOnOCR: Pixtral tower on images of several sizes, padded to one; 2 by 2 patches merged, Qwen3 decoder."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

SIDE = 32


def _config():
    return transformers.LightOnOcrConfig(
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 8,
            "image_size": SIDE,
            "patch_size": 4,
        },
        text_config={"model_type": "qwen3", **TEXT, "head_dim": 8},
        image_token_id=IMAGE,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    sizes = drawn([(32, 32), (16, 32), (32, 16), (16, 16)], images, generator)
    ids = around([[IMAGE] * (h * w // 64) for h, w in sizes], words(text, generator))
    if not images:
        return Sample(ids)
    pixels = noise(images, 3, SIDE, SIDE, generator=generator)
    return Sample(ids, {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)})


FAMILIES = (Family("lighton_ocr", "LightOnOCR", _config, _sample),)
