"""Chameleon: images become words of a codebook; the base model is the decoder itself, its layers return tuples."""

import torch
import transformers

from tests.families.prompt_layout import around, framed, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

CODES = 8
"""Words of the codebook; their ids begin at 141."""
TOKENS = 16


def _config(**extra):
    # The digits of a code are written in letters.
    codes = {f"IMGIMG{chr(ord('A') + i)}Z": 141 + i for i in range(CODES)}
    return transformers.ChameleonConfig(
        vq_config={
            "embed_dim": 4,
            "num_embeddings": CODES,
            "latent_channels": 4,
            "resolution": 8,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
        },
        vocabulary_map={"<image>": IMAGE, **codes},
        **TEXT,
        **extra,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    ids = around([framed(TOKENS)] * images, words(text, generator))
    return Sample(ids, {"pixel_values": noise(images, 3, 8, 8, generator=generator)} if images else {})


FAMILIES = (
    Family("chameleon", "Chameleon 7B", _config, _sample),
    Family("chameleon-swin", "Chameleon 30B", lambda: _config(swin_norm=True), _sample),
)
