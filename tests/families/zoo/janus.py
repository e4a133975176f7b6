"""Janus: SigLIP-like tower, MLP aligner, Llama decoder (the tower and head that make images are not used)."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample


def _config():
    return transformers.JanusConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 1.5,
            "image_size": 16,
            "patch_size": 4,
            "projection_dim": 32,
            "num_image_tokens": 16,
        },
        vq_config={
            "embed_dim": 4,
            "num_embeddings": 32,
            "latent_channels": 8,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "projection_dim": 32,
            "image_token_embed_dim": 32,
        },
        text_config={"model_type": "llama", **TEXT},
        image_token_id=IMAGE,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = around([framed(16)] * images, words(text, generator))
    return Sample(ids, {"pixel_values": noise(images, 3, 16, 16, generator=generator)} if images else {})


FAMILIES = (Family("janus", "Janus-Pro", _config, _sample),)
