"""Models that do not generate text with `generate` on placeholders in the prompt."""

import transformers

from tests.families.refused.case import Refused
from tests.families.refused.encoders import SIZES, VISION
from tests.families.zoo.family import END, IMAGE, START, TEXT

QUERIES = "its generate() hands finished embeddings to that of an inner text model, and an image is a few queries"

QFORMER = {
    "vocab_size": 160,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "encoder_hidden_size": 16,
}
OPT = {
    "model_type": "opt",
    "vocab_size": 160,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 32,
}


def _with_qformer(cls):
    return cls(
        vision_config=VISION, qformer_config=QFORMER, text_config=OPT, num_query_tokens=4, image_token_index=IMAGE
    )


def blip_2():
    return _with_qformer(transformers.Blip2Config)


def instructblip():
    return _with_qformer(transformers.InstructBlipConfig)


def instructblipvideo():
    return transformers.InstructBlipVideoConfig(
        vision_config=VISION, qformer_config=QFORMER, text_config=OPT, num_query_tokens=4, video_token_index=IMAGE
    )


KOSMOS = {"vocab_size": 160, "embed_dim": 32, "layers": 4, "ffn_dim": 48, "attention_heads": 4}


def kosmos_2():
    return transformers.Kosmos2Config(text_config=KOSMOS, vision_config=VISION, latent_query_num=4)


def kosmos_2_5():
    vision = {**VISION, "patch_embed_hidden_size": 48, "head_dim": 8, "max_num_patches": 64}
    return transformers.Kosmos2_5Config(text_config=KOSMOS, vision_config=vision, latent_query_num=8)


def git():
    return transformers.GitConfig(**SIZES, vocab_size=160, vision_config=VISION)


def diffusion_gemma():
    return transformers.DiffusionGemmaConfig(
        text_config={
            **TEXT,
            "head_dim": 8,
            "global_head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 16,
        },
        vision_config={
            "model_type": "gemma4_vision",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "patch_size": 4,
            "pooling_kernel_size": 2,
            "position_embedding_size": 16,
        },
        image_token_id=IMAGE,
        boi_token_id=START,
        eoi_token_id=END,
        canvas_length=8,
    )


def pi0():
    gemma = {"model_type": "gemma", **TEXT, "head_dim": 8}
    return transformers.PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": gemma,
            "vision_config": {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
            "projection_dim": 32,
            "image_token_id": IMAGE,
        },
        dit_config=gemma,
        chunk_size=4,
        max_state_dim=4,
        max_action_dim=4,
    )


def mistral4():
    return transformers.Mistral4Config(
        **{**TEXT, "num_key_value_heads": 4},
        q_lora_rank=12,
        kv_lora_rank=10,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=8,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
    )


CASES = {
    "blip-2": Refused(blip_2, QUERIES),
    "instructblip": Refused(instructblip, QUERIES),
    "instructblipvideo": Refused(instructblipvideo, QUERIES),
    "kosmos-2": Refused(kosmos_2, QUERIES),
    "kosmos-2.5": Refused(kosmos_2_5, "a mask instead of placeholder ids marks its image tokens, and it has no RoPE"),
    "git": Refused(git, "it puts image tokens before the prompt inside the model, and attends without the interface"),
    "diffusion_gemma": Refused(diffusion_gemma, "it fills a canvas by diffusion instead of generating token by token"),
    "pi0": Refused(pi0, "it predicts the actions of a robot and generates no text"),
    "mistral4": Refused(mistral4, "this class reads text only: with images, Mistral Small 4 is a Mistral3 model"),
}
