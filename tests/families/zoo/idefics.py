"""Idefics 2 and 3, SmolVLM: images of a sample along a second dimension, and a mask of their pixels."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import transformers

from tests.families.zoo.family import (
    IMAGE,
    START,
    TEXT,
    Family,
    Media,
    Sample,
    choose,
    concatenated,
    draw_words,
    lay_out,
)

AROUND = START
"""``<fake_token_around_image>``"""
WHOLE, FIRST_CELL, NEWLINE, TWO_NEWLINES = 140, 141, 148, 149
SIDE = 24
TILE = 9
"""Tokens of a tile of 6 x 6 patches, 2 x 2 of which make one."""
GRIDS = ((0, 0), (1, 2), (2, 1), (2, 2))
"""Rows and columns of tiles; none if the image is small."""
LATENTS = 7
SIZES = ((24, 16), (8, 24), (22, 19), (16, 16))
"""Height and width of images in Idefics 2; patches at the border may be incomplete."""
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 4,
}


def _idefics2():
    perceiver = {
        "hidden_size": TEXT["hidden_size"],
        "resampler_n_latents": LATENTS,
        "resampler_depth": 2,
        "resampler_n_heads": 4,
        "resampler_head_dim": 8,
        "num_key_value_heads": 2,
    }
    return transformers.Idefics2Config(
        vision_config=VISION,
        perceiver_config=perceiver,
        text_config={"model_type": "mistral", **TEXT, "sliding_window": 200},
        image_token_id=IMAGE,
    )


def _tiled(config_class: type):
    return config_class(
        vision_config=VISION, text_config={"model_type": "llama", **TEXT}, image_token_id=IMAGE, scale_factor=2
    )


def _media(pictures: Sequence[torch.Tensor]) -> Media:
    """``[1, images, 3, height, width]``, padded, with masks ``[1, images, height, width]``."""
    if not pictures:
        return {}
    return concatenated(
        [
            {"pixel_values": p[None, None], "pixel_attention_mask": torch.ones(1, 1, *p.shape[1:], dtype=torch.long)}
            for p in pictures
        ],
        dim=1,
    )


def _collate(media: Sequence[Media]) -> dict[str, torch.Tensor]:
    """A sample without images has a row of empty ones."""
    empty = next({name: t[:, :1] * 0 for name, t in m.items()} for m in media if m)
    return concatenated([m or empty for m in media])


def _sample_padded(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    ids = lay_out(words, [[AROUND, *[IMAGE] * LATENTS, AROUND]] * images)
    # Of two such tokens between neighbors, the processor leaves one.
    ids = [ids[0], *(token for before, token in pairwise(ids) if not before == token == AROUND)]
    sizes = [choose(SIZES, generator) for _ in range(images)]
    return Sample(ids, _media([torch.randn(3, *size, generator=generator) for size in sizes]))


def _sample_tiled(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    grids = [choose(GRIDS, generator) for _ in range(images)]
    tiles = sum(rows * columns + 1 for rows, columns in grids)
    pictures = [torch.randn(3, SIDE, SIDE, generator=generator) for _ in range(tiles)]
    return Sample(lay_out(words, [_block(*grid) for grid in grids]), _media(pictures))


def _block(rows: int, columns: int) -> list[int]:
    """Each tile behind the name of its place, a newline behind each row, and the whole image at the end."""
    whole = [AROUND, WHOLE, *[IMAGE] * TILE, AROUND]
    if rows == 0:
        return whole
    block = []
    for row in range(rows):
        for column in range(columns):
            block += [AROUND, FIRST_CELL + 2 * row + column, *[IMAGE] * TILE]
        # Behind the last row there are two, which are one token.
        block += [NEWLINE if row < rows - 1 else TWO_NEWLINES]
    return block + whole


FAMILIES = (
    Family("idefics2", "Idefics 2", _idefics2, _sample_padded, collate=_collate, image_dim=1),
    Family("idefics3", "Idefics 3", lambda: _tiled(transformers.Idefics3Config), _sample_tiled, _collate, image_dim=1),
    Family("smolvlm", "SmolVLM", lambda: _tiled(transformers.SmolVLMConfig), _sample_tiled, _collate, image_dim=1),
)
