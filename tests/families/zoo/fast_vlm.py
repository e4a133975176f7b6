"""FastVLM: convolutional tower from timm (here one convolution), Qwen2 decoder."""

import torch
import transformers

from tests.families.prompt_layout import around, noise, words
from tests.families.timm_stand_in import PlainTowerConfig
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample


def _config():
    return transformers.FastVlmConfig(
        vision_config=PlainTowerConfig(),
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=IMAGE,
        image_seq_length=16,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = around([[IMAGE] * 16] * images, words(text, generator))
    return Sample(ids, {"pixel_values": noise(images, 3, 16, 16, generator=generator)} if images else {})


FAMILIES = (Family("fast_vlm", "FastVLM", _config, _sample),)
