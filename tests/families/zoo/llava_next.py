"""LLaVA-NeXT: an overview and tiles of each image, unpadded, with a newline token behind each row of the tiles."""

import torch
import transformers

from tests.families.zoo.family import IMAGE, TEXT, Family, Media, Sample, choose, clip, draw_words, lay_out

SIDE = 12
"""Pixels of a tile, 3 patches."""
GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
SIZES = {
    (12, 24): (3, 9 + 3 * 6 + 3),
    (6, 36): (3, 9 + 1 * 6 + 1),
    (24, 11): (3, 9 + 6 * 3 + 6),
    (24, 24): (5, 9 + 6 * 6 + 6),
    (24, 17): (5, 9 + 6 * 4 + 6),
}
"""Height and width of an image: its tiles with the overview, and its tokens (overview + rows x columns + newlines)."""


def tiled(sizes: list[tuple[int, int]], tiles: list[int], generator: torch.Generator, side: int = SIDE) -> Media:
    """Pixels of all tiles, filled up with zeros to the image that has most."""
    pixels = torch.zeros(len(sizes), max(tiles), 3, side, side)
    for image, count in zip(pixels, tiles, strict=True):
        image[:count] = torch.randn(count, 3, side, side, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


def _config(window: int | None):
    return transformers.LlavaNextConfig(
        vision_config=clip(SIDE),
        text_config={"model_type": "mistral", **TEXT, "sliding_window": window},
        image_token_index=IMAGE,
        image_grid_pinpoints=GRIDS,
    )


def _sample(family: Family, images: int, videos: int, text: int, generator: torch.Generator) -> Sample:
    words = draw_words(text, generator)
    sizes = [choose(list(SIZES), generator) for _ in range(images)]
    ids = lay_out(words, [[IMAGE] * SIZES[size][1] for size in sizes])
    return Sample(ids, tiled(sizes, [SIZES[size][0] for size in sizes], generator) if images else {})


FAMILIES = (
    Family("llava_next", "LLaVA-NeXT", lambda: _config(None), _sample),
    Family("llava_next-sliding", "LLaVA-NeXT with a sliding window", lambda: _config(24), _sample),
)
