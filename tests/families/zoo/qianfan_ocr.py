"""Qianfan-OCR: InternVL-like tower with a class token, 2 by 2 patches merged, Qwen3 decoder."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

TOKENS = 4


def _config():
    return transformers.QianfanOCRConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": (16, 16),
            "patch_size": (4, 4),
            "drop_path_rate": 0.0,
        },
        text_config={"model_type": "qwen3", **TEXT, "head_dim": 8},
        image_token_id=IMAGE,
        image_seq_length=TOKENS,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    tiles = drawn([1, 3, 4], images, generator)
    ids = around([framed(TOKENS * n) for n in tiles], words(text, generator))
    return Sample(ids, {"pixel_values": noise(sum(tiles), 3, 16, 16, generator=generator)} if images else {})


FAMILIES = (Family("qianfan_ocr", "Qianfan-OCR", _config, _sample),)
