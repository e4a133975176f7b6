"""Aria: Idefics3 tower, a fixed number of queries per crop attends to it, mixture-of-experts decoder."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

TOKENS = 9


def _config():
    return transformers.AriaConfig(
        vision_config={
            "model_type": "idefics3_vision",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        text_config={**TEXT, "model_type": "aria_text", "moe_num_experts": 4},
        projector_patch_to_query_dict={16: TOKENS},
        image_token_index=IMAGE,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    crops = drawn([1, 2], images, generator)
    ids = around([[IMAGE] * (TOKENS * n) for n in crops], words(text, generator))
    if not images:
        return Sample(ids)
    pixels = noise(sum(crops), 3, 16, 16, generator=generator)
    # Every crop but the first of an image may have padding at its lower edge.
    mask = torch.ones(sum(crops), 16, 16, dtype=torch.bool)
    mask[-1, 12:] = False
    return Sample(ids, {"pixel_values": pixels, "pixel_mask": mask})


FAMILIES = (Family("aria", "Aria", _config, _sample),)
