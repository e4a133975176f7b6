"""Mistral Small 4: Mistral 3's vision with a decoder that caches compressed rows and scales queries by position."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import END, IMAGE, TEXT, Family, Sample

BREAK, SIDE = 154, 32


def _config():
    return transformers.Mistral3Config(
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
        text_config={
            "model_type": "mistral4",
            **TEXT,
            "num_key_value_heads": 4,
            "q_lora_rank": 12,
            "kv_lora_rank": 10,
            "qk_nope_head_dim": 4,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            # Queries behind each 16 tokens are scaled up.
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "llama_4_scaling_beta": 0.5,
            },
        },
        image_token_index=IMAGE,
        spatial_merge_size=2,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    sizes = drawn([(32, 32), (16, 32), (32, 16), (16, 16)], images, generator)
    # A break behind each row but the last, which has the end.
    rows = [[*[IMAGE] * (w // 8), BREAK] * (h // 8) for h, w in sizes]
    pieces = [[*row[:-1], END] for row in rows]
    ids = around(pieces, words(text, generator))
    if not images:
        return Sample(ids)
    pixels = noise(images, 3, SIDE, SIDE, generator=generator)
    return Sample(ids, {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)})


FAMILIES = (Family("mistral3-mistral4", "Mistral Small 4", _config, _sample),)
