"""Muse Glimmer and Muse Spark: gated attention; the full layers have no RoPE and get no tables."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, merged, packed, words
from tests.families.zoo.family import IMAGE, TEXT, VIDEO, Family, Sample

EYES = {
    "patch_size": 4,
    "pos_emb_height": 8,
    "pos_emb_width": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}
DECODER = {**TEXT, "head_dim": 8, "sliding_window": 40}
REST = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "out_hidden_size": 64,
    "projector_hidden_size": 24,
}


def _glimmer():
    return transformers.MuseGlimmerConfig(vision_config=EYES, text_config=DECODER, **REST)


def _spark():
    return transformers.MuseSparkConfig(
        vision_config=EYES,
        text_config={
            **DECODER,
            "moe_intermediate_size": 16,
            "moe_hidden_size": 24,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        audio_config={
            "patch_sizes": (4, 2),
            "hidden_sizes": (8, 16),
            "depths": (1, 1),
            "num_hidden_layers": 2,
            "out_hidden_size": 32,
        },
        audio_token_id=154,
        **REST,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    said = words(text, generator)
    grids, films, media = packed(images, videos, (96,), generator)
    pieces = [framed(n) for n in merged(grids, 2)] + [framed(n, VIDEO) for n in merged(films, 2)]
    return Sample(around(pieces, said), media)


FAMILIES = (
    Family("muse_glimmer", "Muse Glimmer", _glimmer, _sample, has_video=True),
    Family("muse_spark", "Muse Spark", _spark, _sample, has_video=True),
)
