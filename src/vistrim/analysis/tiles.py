"""Positions of the tiles that a processor cuts images into, found with images whose colors encode coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vistrim.analysis.overlay import image_as_seen
from vistrim.analysis.pixels import pixels_of
from vistrim.prompting import format_prompts

NEAR = 0.05
"""Tolerance for equal positions, as a share of a side: colors have 256 steps, and resizing blurs borders."""


@dataclass(frozen=True)
class Tile:
    """A part of an image, or the whole image, that the vision tower encodes separately.

    Attributes
    ----------
    image : int
        Number of the image.
    left, top, width, height : float
        Shares of the image's width and height. Padding lies outside of them.
    """

    image: int
    left: float
    top: float
    width: float
    height: float

    @property
    def is_whole(self) -> bool:
        """Whether the tile is the whole image."""
        edges = (self.left, self.top, 1 - self.width, 1 - self.height)
        return all(abs(edge) < NEAR for edge in edges)


def find_tiles(processor: Any, images: Sequence[Image.Image]) -> list[Tile]:
    """Find the tiles of the images of one prompt, in the order of ``pixel_values``.

    Raises
    ------
    ValueError
        If the processor does not return images, or a tile belongs to no known image.
    """
    found: dict[int, Tile] = {}
    tiles = 0
    for number in range(len(images)):
        shown = [_coordinates(image.size) if i == number else _black(image.size) for i, image in enumerate(images)]
        pixels = pixels_of(format_prompts(processor, [""], [shown]))
        if pixels is None:
            raise ValueError("the model's processor does not return images")
        tiles = len(pixels)
        for place, tile in enumerate(pixels):
            box = _box(np.asarray(image_as_seen(tile, processor.image_processor)).astype(float) / 255)
            if box is not None:
                found[place] = Tile(number, *box)
    if len(found) != tiles:
        raise ValueError("the processor's tiles could not be assigned to images")
    return [found[place] for place in range(tiles)]


def arrange(tiles: Sequence[Tile]) -> list[list[int]] | None:
    """Indices of equally large tiles, row by row, if they fill a rectangle; None otherwise."""
    left, top = min(tile.left for tile in tiles), min(tile.top for tile in tiles)
    width, height = (float(np.median([getattr(tile, side) for tile in tiles])) for side in ("width", "height"))
    places = {
        (round((tile.top - top) / height), round((tile.left - left) / width)): number
        for number, tile in enumerate(tiles)
    }
    rows, columns = (1 + max(place[axis] for place in places) for axis in (0, 1))
    if not len(places) == len(tiles) == rows * columns:
        return None
    return [[places[row, column] for column in range(columns)] for row in range(rows)]


def _coordinates(size: tuple[int, int]) -> Image.Image:
    """Red grows from left to right and green from top to bottom; blue distinguishes the image from padding."""
    across, down = (255 * (np.arange(side) + 0.5) / side for side in size)
    pixels = np.full((size[1], size[0], 3), 255.0)
    pixels[..., 0], pixels[..., 1] = across[None, :], down[:, None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def _black(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size)


def _box(pixels: np.ndarray) -> tuple[float, float, float, float] | None:
    """Left, top, width and height of the part that an image of coordinates ``[height, width, 3]`` shows."""
    shows = pixels[..., 2] > 0.9
    if shows.sum() < 4:
        return None
    rows, columns = np.nonzero(shows)
    height, width = shows.shape
    left, across = _line(columns, pixels[..., 0][shows], width)
    top, down = _line(rows, pixels[..., 1][shows], height)
    return left, top, across, down


def _line(place: np.ndarray, value: np.ndarray, length: int) -> tuple[float, float]:
    """Start and extent, over all pixels, of a straight line fitted to the values at some pixels."""
    if np.ptp(place) == 0:
        return float(value.mean()), 1e-9
    slope, start = np.polyfit(place + 0.5, value, 1)
    return float(start), float(slope * length)
