"""Ovis 2: visual tokens are mixtures of a visual vocabulary, which also has the tokens around and between tiles."""

import torch
import transformers

from tests.families.zoo.family import IMAGE, TEXT, Family, Sample, choose, draw_words, lay_out

BEGIN, GRID, COLUMN, ROW, FINISH = INDICATORS = (140, 141, 142, 143, 144)
SIDE = 24
TILE = 9
"""Tokens of a tile of 6 x 6 patches, 2 x 2 of which make one."""
GRIDS = ((1, 1), (1, 2), (2, 2))


def _config():
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 4,
        "vocab_size": 40,
        "hidden_stride": 2,
        "num_visual_indicator_tokens": len(INDICATORS),
    }
    return transformers.Ovis2Config(
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=IMAGE,
        visual_indicator_token_ids=INDICATORS,
        vocab_size=TEXT["vocab_size"],
        hidden_size=TEXT["hidden_size"],
        tie_word_embeddings=False,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    grids = [choose(GRIDS, generator) for _ in range(images)]
    tiles = sum(1 + (rows * columns if rows * columns > 1 else 0) for rows, columns in grids)
    pixels = torch.randn(tiles, 3, SIDE, SIDE, generator=generator)
    return Sample(lay_out(words, [_block(*grid) for grid in grids]), {"pixel_values": pixels} if images else {})


def _block(rows: int, columns: int) -> list[int]:
    """The whole image, and then its tiles if there are several."""
    block = [BEGIN, *[IMAGE] * TILE, GRID]
    if rows * columns > 1:
        line = [token for column in range(columns) for token in [COLUMN, *[IMAGE] * TILE]][1:]
        block += [token for row in range(rows) for token in [ROW, *line]][1:]
    return [*block, FINISH]


FAMILIES = (Family("ovis2", "Ovis 2", _config, _sample),)
