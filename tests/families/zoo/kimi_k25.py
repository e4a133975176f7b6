"""Kimi K2.5: DeepSeek V3 decoder, whose attention caches one compressed row per token for all heads."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, VIDEO, Family, Sample


def _config():
    return transformers.Kimi_K25Config(
        vision_config={
            "patch_size": 4,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
        },
        text_config={
            "model_type": "deepseek_v3",
            **TEXT,
            "num_key_value_heads": 4,
            "q_lora_rank": 12,
            "kv_lora_rank": 10,
            "qk_nope_head_dim": 6,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
        },
        projection_hidden_size=16,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    grids, _, media = packed(images, 0, (3, 4, 4), generator)
    ids = around([framed(n) for n in merged(grids, 2)], words(text, generator))
    return Sample(ids, media)


FAMILIES = (Family("kimi_k25", "Kimi K2.5", _config, _sample),)
