"""DeepSeek-OCR 2: a causal encoder reads 144 or 256 learned queries per view; one separator behind each image."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

QUERIES = 144


def _config():
    return transformers.DeepseekOcr2Config(
        vision_config={
            "sam_config": {
                "hidden_size": 16,
                "output_channels": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 4,
                "window_size": 3,
                "global_attn_indexes": [1],
                "mlp_dim": 24,
                "downsample_channels": [12, 16],
            },
            "encoder_config": {
                "vocab_size": 8,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
            },
        },
        text_config={
            **TEXT,
            "max_position_embeddings": 2048,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        image_token_id=IMAGE,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    crops = drawn([0, 1], images, generator)
    ids = around([[IMAGE] * (QUERIES * (1 + n) + 1) for n in crops], words(text, generator))
    if not images:
        return Sample(ids)
    media = {
        "pixel_values": noise(images, 3, 64, 64, generator=generator),
        "num_local_patches": torch.tensor(crops),
    }
    if sum(crops):
        media["pixel_values_local"] = noise(sum(crops), 3, 48, 48, generator=generator)
    return Sample(ids, media)


FAMILIES = (Family("deepseek_ocr2", "DeepSeek-OCR 2", _config, _sample),)
