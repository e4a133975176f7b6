"""Models with layers that keep a running state instead of one key and value per token."""

import transformers

from tests.families.refused.case import Refused
from tests.families.refused.encoders import VISION
from tests.families.zoo.family import DEPTH, END, IMAGE, START, TEXT, VIDEO

LINEAR = "some layers sum up all tokens in a running state, from which none can be removed"
CONVOLUTION = "some layers mix each token with its neighbors by a convolution, so that what is removed changes them"

TYPES = ["linear_attention"] * (DEPTH - 1) + ["full_attention"]
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0}
DELTA_NET = {
    **TEXT,
    "head_dim": 8,
    "layer_types": TYPES,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": MROPE,
}
EXPERTS = {
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
TOWER = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
}
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}


def qwen3_5():
    return transformers.Qwen3_5Config(text_config=DELTA_NET, vision_config=TOWER, **TOKENS)


def qwen3_5_moe():
    return transformers.Qwen3_5MoeConfig(text_config=DELTA_NET | EXPERTS, vision_config=TOWER, **TOKENS)


def qwen4_exp():
    text = {**DELTA_NET, **EXPERTS, "hc_lowrank": 4}
    index = {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    }
    return transformers.Qwen4ExpConfig(text_config=text | index, vision_config=TOWER, **TOKENS)


def _minicpm(cls):
    return cls(
        text_config={"model_type": "qwen3_5_text", **DELTA_NET},
        vision_config=VISION,
        insert_layer_id=0,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def minicpm_ocr():
    return _minicpm(transformers.MiniCPMOcrConfig)


def minicpmv4_6():
    return _minicpm(transformers.MiniCPMV4_6Config)


def minicpmv4_7():
    return _minicpm(transformers.MiniCPMV4_7Config)


def lfm2_vl():
    return transformers.Lfm2VlConfig(
        text_config={
            "model_type": "lfm2",
            **TEXT,
            "layer_types": ["conv", "full_attention"] * 2,
            "block_multiple_of": 8,
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
            "num_patches": 16,
        },
        projector_hidden_size=24,
        image_token_id=IMAGE,
    )


def lfm3_vl():
    return transformers.Lfm3VlConfig(
        text_config={
            "model_type": "lfm3",
            **TEXT,
            "head_dim": 8,
            "layer_types": ["conv", "full_attention", "sliding_attention", "conv"],
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "patch_size": 4,
            "layer_types": ["conv", "full_attention"],
        },
        projector_hidden_size=24,
        **TOKENS,
    )


def nemotron_h_omni():
    text = {name: value for name, value in TEXT.items() if name != "num_hidden_layers"}
    return transformers.NemotronH_Omni_Reasoning_V3_Config(
        text_config={
            "model_type": "nemotron_h",
            **text,
            "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"],
            "head_dim": 8,
            "ssm_state_size": 4,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
        },
        vision_config={
            "model_type": "radio",
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 1.5,
            "patch_size": 4,
            "image_size": 16,
            "max_img_size": 32,
            "video_temporal_patch_size": 2,
        },
        audio_config=None,
        vision_hidden_size=16,
        projector_hidden_size=24,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def glm5_next():
    return transformers.Glm5NextConfig(
        text_config={
            **TEXT,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "v_head_dim": 8,
            "qk_nope_head_dim": 8,
            "index_topk": 8,
            "index_head_dim": 8,
            "index_n_heads": 2,
            "index_kpool": 4,
            "linear_head_dim": 8,
            "linear_num_heads": 4,
            "mlp_layer_types": ["dense"] * DEPTH,
        },
        vision_config={**TOWER, "image_size": 16, "projection_intermediate_size": 24},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


INKLING = {
    **TEXT,
    "head_dim": 8,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "sliding_window_size": 16,
    "d_rel": 4,
    "rel_extent": 16,
    "unpadded_vocab_size": 160,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["hybrid_sliding", "hybrid"] * 2,
}


def inkling2():
    text = {name: value for name, value in INKLING.items() if name != "intermediate_size"}
    return transformers.Inkling2Config(
        text_config=text | {"n_layers_per_attn_res_block": 2},
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
            "mlp_ratio": 1.5,
            "posemb_grid_size": 8,
            "projection_hidden_dim": 24,
            "text_hidden_size": 32,
        },
        image_token_id=IMAGE,
    )


def inkling_mm_model():
    return transformers.InklingConfig(
        text_config=INKLING | {"n_shared_experts": 1},
        vision_config={"patch_size": 2, "temporal_patch_size": 2, "num_hidden_layers": 4},
        audio_config={"n_mel_bins": 4, "mel_vocab_size": 8},
        image_token_id=IMAGE,
        audio_token_id=154,
    )


CASES = {
    "qwen3_5": Refused(qwen3_5, LINEAR),
    "qwen3_5_moe": Refused(qwen3_5_moe, LINEAR),
    "qwen4_exp": Refused(qwen4_exp, LINEAR),
    "minicpm_ocr": Refused(minicpm_ocr, LINEAR),
    "minicpmv4_6": Refused(minicpmv4_6, LINEAR),
    "minicpmv4_7": Refused(minicpmv4_7, LINEAR),
    "nemotron_h_omni": Refused(nemotron_h_omni, LINEAR),
    "glm5_next": Refused(glm5_next, LINEAR),
    "lfm2_vl": Refused(lfm2_vl, CONVOLUTION),
    "lfm3_vl": Refused(lfm3_vl, CONVOLUTION),
    "inkling2": Refused(inkling2, CONVOLUTION),
    "inkling_mm_model": Refused(inkling_mm_model, CONVOLUTION),
}
