"""Emu3: images of several sizes become words of a codebook, with a newline behind each row, all of them visual."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, framed, noise, words
from tests.families.zoo.family import IMAGE, TEXT, Family, Sample

CODES, NEWLINE = 8, 149


def _config():
    codes = {f"<|visual token {i:06d}|>": 141 + i for i in range(CODES)}
    return transformers.Emu3Config(
        vq_config={
            "codebook_size": CODES,
            "embed_dim": 4,
            "latent_channels": 4,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "hidden_size": 32,
            "temporal_downsample_factor": 1,
        },
        text_config={**TEXT, "attention_dropout": 0.0},
        vocabulary_map={"<image>": IMAGE, "<|extra_200|>": NEWLINE, **codes},
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    sizes = drawn([(8, 8), (4, 8), (8, 4)], images, generator)
    ids = around([framed(h // 2 * (w // 2 + 1)) for h, w in sizes], words(text, generator))
    if not images:
        return Sample(ids)
    # Padded to the largest image.
    pixels = noise(images, 3, 8, 8, generator=generator)
    return Sample(ids, {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)})


FAMILIES = (Family("emu3", "Emu3 Chat", _config, _sample),)
