"""Granite Docling 2: Idefics3-like tiles with separators, DeepStack features added behind the first layers."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import END, IMAGE, START, TEXT, Family, Sample

AROUND, GLOBAL = START, END
TOKENS, TILES = 4, 5


def _config():
    return transformers.GraniteDoclingConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 4,
            "out_hidden_size": 32,
            "scale_factor": 4,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config={**TEXT, "embedding_multiplier": 1.5, "attention_multiplier": 0.4, "residual_multiplier": 0.8},
        image_token_id=IMAGE,
    )


def _image(rows: int, columns: int) -> list[int]:
    tokens, ids = [IMAGE] * TOKENS, []
    for y in range(rows):
        for x in range(columns):
            # The row and column of a tile have an id of their own.
            ids += [AROUND, 10 + 2 * y + x, *tokens]
        ids.append(8)
    return [*ids, 9, AROUND, GLOBAL, *tokens, AROUND] if rows * columns > 1 else ids


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    grids = drawn([(1, 1), (1, 2), (2, 1), (2, 2)], images, generator)
    ids = around([_image(*grid) for grid in grids], words(text, generator))
    if not images:
        return Sample(ids)
    tiles = sum(h * w + (h * w > 1) for h, w in grids)
    pixels = noise(1, tiles, 3, 32, 32, generator=generator)
    return Sample(ids, {"pixel_values": pixels, "pixel_attention_mask": torch.ones(1, tiles, dtype=torch.bool)})


def _collate(media):
    """One row of tiles per sample, padded behind; of padding alone for a sample without images."""
    most = max(m["pixel_values"].shape[1] for m in media if m)
    pixels = torch.zeros(len(media), most, 3, 32, 32)
    mask = torch.zeros(len(media), most, dtype=torch.bool)
    for i, m in enumerate(media):
        if m:
            tiles = m["pixel_values"].shape[1]
            pixels[i, :tiles], mask[i, :tiles] = m["pixel_values"][0], True
    return {"pixel_values": pixels, "pixel_attention_mask": mask}


FAMILIES = (Family("granite_docling", "Granite Docling", _config, _sample, _collate, image_dim=1),)
