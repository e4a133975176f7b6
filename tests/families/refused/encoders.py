"""Models whose decoder reads images by cross-attention, or whose encoder does: there are no visual tokens in it."""

import transformers

from tests.families.refused.case import Refused
from tests.families.zoo.family import IMAGE, TEXT

ENCODER = "an encoder reads the images, and the decoder attends to all of its states by cross-attention"
CROSS = "the decoder attends to the images by cross-attention, so that its own sequence has no visual tokens"

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VOCABULARY = {"vocab_size": 160, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def blip():
    return transformers.BlipConfig(text_config={**SIZES, **VOCABULARY, "sep_token_id": 2}, vision_config=VISION)


def florence2():
    return transformers.Florence2Config(
        text_config={
            "model_type": "bart",
            **VOCABULARY,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
        },
        vision_config={
            "depths": (1, 1),
            "patch_size": (7, 3),
            "patch_stride": (4, 2),
            "patch_padding": (3, 1),
            "patch_prenorm": (False, True),
            "embed_dim": (8, 16),
            "num_heads": (2, 2),
            "num_groups": (2, 2),
            "window_size": 4,
            "projection_dim": 32,
        },
        image_token_id=IMAGE,
    )


def idefics():
    return transformers.IdeficsConfig(
        **SIZES, **VOCABULARY, vision_config={**VISION, "embed_dim": 16}, cross_layer_interval=2
    )


def mllama():
    return transformers.MllamaConfig(
        text_config={**TEXT, "cross_attention_layers": [1, 3]},
        vision_config={
            **VISION,
            "attention_heads": 2,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 32,
        },
        image_token_index=IMAGE,
    )


def evolla():
    protein = {**SIZES, "vocab_size": 30, "max_position_embeddings": 64}
    return transformers.EvollaConfig(
        **TEXT,
        protein_encoder_config=protein,
        aligner_num_add_layers=1,
        resampler_depth=1,
        resampler_heads=2,
        resampler_dim_head=8,
        resampler_num_latents=4,
    )


def t5gemma2():
    layers = ["sliding_attention", "full_attention"] * 2
    text = {**TEXT, "head_dim": 8, "query_pre_attn_scalar": 8, "layer_types": layers}
    return transformers.T5Gemma2Config(
        encoder={
            "text_config": text,
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "mm_tokens_per_image": 4,
            "image_token_index": IMAGE,
        },
        decoder=text,
        image_token_index=IMAGE,
    )


def udop():
    return transformers.UdopConfig(
        vocab_size=160,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        image_size=16,
        patch_size=4,
        max_2d_position_embeddings=64,
    )


def pix2struct():
    text = {"hidden_size": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 160}
    vision = {**VISION, "patch_embed_hidden_size": 48, "d_ff": 24, "d_kv": 8, "seq_len": 64}
    return transformers.Pix2StructConfig(text_config=text, vision_config=vision)


def pp_formulanet():
    return transformers.PPFormulaNetConfig(
        text_config={
            "vocab_size": 160,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
        },
        vision_config={
            **VISION,
            "image_size": 32,
            "output_channels": 8,
            "window_size": 3,
            "global_attn_indexes": [1],
            "mlp_dim": 24,
            "post_conv_in_channels": 8,
            "post_conv_mid_channels": 12,
            "post_conv_out_channels": 16,
            "decoder_hidden_size": 32,
        },
    )


def vision_encoder_decoder():
    return transformers.VisionEncoderDecoderConfig(
        encoder={"model_type": "vit", **VISION},
        decoder={"model_type": "bert", **SIZES, "vocab_size": 160, "is_decoder": True, "add_cross_attention": True},
    )


CASES = {
    "blip": Refused(blip, CROSS),
    "florence2": Refused(florence2, ENCODER),
    "idefics": Refused(idefics, CROSS),
    "mllama": Refused(mllama, CROSS),
    "evolla": Refused(evolla, "it reads proteins, not images, and by cross-attention", "EvollaForProteinText2Text"),
    "t5gemma2": Refused(t5gemma2, ENCODER),
    "udop": Refused(udop, ENCODER),
    "pix2struct": Refused(pix2struct, ENCODER),
    "pp_formulanet": Refused(pp_formulanet, ENCODER),
    "vision-encoder-decoder": Refused(vision_encoder_decoder, ENCODER),
}
