"""Models whose attention chooses keys by an index of its own, or whose cache is of a kind of its own."""

import transformers

from tests.families.refused.case import Refused
from tests.families.refused.encoders import VISION
from tests.families.zoo.family import IMAGE, TEXT, VIDEO

INDEXED = "its sparse attention chooses keys by an index that is cached beside them and counts tokens by position"

COMPRESSED = {
    **TEXT,
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "index_topk": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
}


def dots3_note():
    window = {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 8,
        "swa_kv_lora_rank": 8,
        "swa_head_dim": 8,
        "swa_qk_nope_head_dim": 4,
        "swa_v_head_dim": 8,
    }
    return transformers.Dots3NoteConfig(
        text_config={**COMPRESSED, **window, "head_dim": 8, "shared_experts_intermediate_size": 16},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "moe_intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
            "mlp_layer_types": ["dense", "dense"],
            "adapter_in_dim": 16,
            "adapter_out_dim": 32,
        },
        audio_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "feature_size": 8,
            "downsample_hidden_size": 8,
            "adapter_input_size": 16,
            "adapter_out_dim": 32,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        audio_token_id=154,
    )


def mistral_large4():
    return transformers.MistralLarge4Config(
        text_config=COMPRESSED,
        vision_config={"model_type": "pixtral", **VISION, "head_dim": 8},
        image_token_index=IMAGE,
    )


def minimax_m3_vl():
    return transformers.MiniMaxM3VLConfig(
        text_config={
            **TEXT,
            "head_dim": 8,
            "rotary_dim": 4,
            "dense_intermediate_size": 48,
            "shared_intermediate_size": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "index_n_heads": 2,
            "index_head_dim": 8,
            "index_block_size": 4,
            "index_topk_blocks": 2,
            "layer_types": ["full_attention", "minimax_m3_sparse"] * 2,
        },
        vision_config={**VISION, "image_size": 16},
        projector_hidden_size=24,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
    )


def unlimited_ocr():
    return transformers.UnlimitedOcrConfig(
        vision_config={
            "sam_config": {
                **VISION,
                "image_size": 64,
                "output_channels": 8,
                "window_size": 3,
                "global_attn_indexes": [1],
                "mlp_dim": 24,
                "downsample_channels": [12, 16],
            },
            "encoder_config": {**VISION, "image_size": 64},
        },
        text_config={
            **TEXT,
            "sliding_window": 8,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
        },
        image_token_id=IMAGE,
    )


CASES = {
    "dots3_note": Refused(dots3_note, INDEXED),
    "mistral_large4": Refused(mistral_large4, INDEXED),
    "minimax_m3_vl": Refused(minimax_m3_vl, INDEXED),
    "unlimited_ocr": Refused(unlimited_ocr, "its cache keeps the prompt and a window of the answer in its own tensors"),
}
