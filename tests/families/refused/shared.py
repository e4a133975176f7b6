"""Decoders in which layers share more than the hidden states."""

import transformers

from tests.families.refused.case import Refused
from tests.families.timm_stand_in import WIDTH, Gemma3nTowerConfig
from tests.families.zoo import gemma4 as dense
from tests.families.zoo.family import END, IMAGE, START, TEXT

SHARED = "its last layers use the keys and values of earlier ones"
WORDS, SOUNDS = 142, 157
"""Ids from the first on have their embeddings in a table of images, from the second on in one of sounds."""


def gemma3n():
    return transformers.Gemma3nConfig(
        vision_config=Gemma3nTowerConfig(hidden_size=WIDTH, vocab_size=SOUNDS - WORDS, vocab_offset=WORDS),
        audio_config={
            "vocab_size": TEXT["vocab_size"] - SOUNDS,
            "vocab_offset": SOUNDS,
            "input_feat_size": 16,
            "hidden_size": 16,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 1,
            "sscp_conv_channel_size": (4, 4),
        },
        text_config={
            **TEXT,
            "head_dim": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 40,
            "vocab_size_per_layer_input": WORDS,
            "hidden_size_per_layer_input": 6,
            "num_kv_shared_layers": 2,
            "laurel_rank": 4,
        },
        vision_soft_tokens_per_image=16,
        image_token_id=IMAGE,
        boi_token_id=START,
        eoi_token_id=END,
        audio_token_id=159,
        boa_token_id=154,
        eoa_token_id=155,
    )


def gemma4():
    """E2B and E4B: an input for each layer, and the last layers use the keys and values of earlier ones."""
    return dense.make_config({"hidden_size_per_layer_input": 6, "num_kv_shared_layers": 2})


def granite4_vision():
    return transformers.Granite4VisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        qformer_config={
            "model_type": "blip_2_qformer",
            "num_hidden_layers": 1,
            "intermediate_size": 24,
            "cross_attention_frequency": 1,
            "vocab_size": 8,
            "use_qformer_text_input": False,
        },
        text_config={
            **TEXT,
            "embedding_multiplier": 1.5,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.8,
            "attention_multiplier": 0.4,
        },
        image_token_index=IMAGE,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
        image_seq_length=4,
        downsample_rate="1/2",
        deepstack_layer_map=[(-1, 0), (-2, 2)],
        spatial_vision_layer=-1,
        spatial_target_layers=[1, 3],
        projector_dropout=0.0,
    )


CASES = {
    "gemma3n": Refused(gemma3n, SHARED),
    "gemma4": Refused(gemma4, SHARED),
    "granite4_vision": Refused(
        granite4_vision, "it adds image features between layers, at places that it is told once"
    ),
}
