"""Fuyu: patches go through one linear layer instead of a tower; fused projections, half of each head is rotated."""

import torch
import transformers

from tests.families.prompt_layout import around, drawn, noise, words
from tests.families.zoo.family import BOS, IMAGE, TEXT, Family, Sample

NEWLINE = 154


def _config():
    return transformers.FuyuConfig(
        text_config={"model_type": "persimmon", **TEXT},
        patch_size=4,
        image_token_id=IMAGE,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    grids = drawn([(3, 4), (2, 5), (4, 2)], images, generator)
    pieces = [[*([IMAGE] * columns + [NEWLINE]) * rows, BOS] for rows, columns in grids]
    ids = around(pieces, words(text, generator))
    patches = sum(rows * columns for rows, columns in grids)
    return Sample(ids, {"pixel_values": noise(patches, 48, generator=generator)} if images else {})


FAMILIES = (Family("fuyu", "Fuyu", _config, _sample),)
