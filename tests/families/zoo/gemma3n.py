"""Gemma 3n: four streams of hidden states, per-layer inputs, shared keys and values; tower from timm."""

import torch
import transformers

from tests.families.layout import around, framed, noise, words
from tests.families.tower import WIDTH, Gemma3nTowerConfig
from tests.families.zoo.family import END, IMAGE, START, TEXT, Family, Sample

WORDS, SOUNDS = 142, 157
"""Ids from the first on have their embeddings in a table of images, from the second on in one of sounds."""


def _config():
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


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = around([framed(16)] * images, words(text, generator))
    return Sample(ids, {"pixel_values": noise(images, 3, 16, 16, generator=generator)} if images else {})


FAMILIES = (Family("gemma3n", "Gemma 3n", _config, _sample),)
