"""Rendering of scenes, and the object under each patch.

Objects are sprites, drawn once per kind, letter and width, and pasted at whole pixels in integer arithmetic. A batch of
scenes is therefore bit-identical on a CPU and on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from vistrim.reference.lm.backgrounds import background
from vistrim.reference.lm.scenes import AREA, IMAGE_SIZE, PATCH_SIZE, WIDTHS, Scene
from vistrim.reference.rendering import CORNERS, DARK, MIN_COVERAGE, RGB, letter_font
from vistrim.reference.scenes import COLORS, COLUMNS, KINDS, LETTERS, ROWS

_AREAS = len(ROWS) * len(COLUMNS)
ALL_WIDTHS = tuple(width for widths in WIDTHS.values() for width in widths)
#: Supersampling factor for smooth edges.
_SUPERSAMPLING = 4
#: Color of the outline of an object, and its width as a share of the object's width.
_OUTLINE = (24, 24, 24)
_OUTLINE_WIDTH = 0.06
#: Height of a letter's font as a share of the object's width.
_LETTER_SIZE = 0.62
#: Columns of ``placements``.
PRESENT, KIND, COLOR, WIDTH, LETTER, LEFT, TOP = range(7)


@dataclass(frozen=True)
class Sprites:
    """Coverage (0 to 255) of the pixels of an area by objects in its upper left corner.

    Attributes
    ----------
    whole, inside : torch.Tensor
        ``(kinds * widths, 112, 112)`` int32: the object with and without its outline.
    letter : torch.Tensor
        ``(letters * kinds * widths, 112, 112)`` int32.
    colors, inks : torch.Tensor
        ``(colors, 3)`` int32: RGB of an object, and of the letter on it.
    """

    whole: torch.Tensor
    inside: torch.Tensor
    letter: torch.Tensor
    colors: torch.Tensor
    inks: torch.Tensor


@lru_cache(maxsize=2)
def sprites(device: torch.device | str = "cpu") -> Sprites:
    """Draw every object that can occur in scenes, once per device."""
    shapes = [_shape(kind, width) for kind in KINDS for width in ALL_WIDTHS]
    letters = [_letter(letter, kind, width) for letter in LETTERS for kind in KINDS for width in ALL_WIDTHS]
    tensors = (
        _stack(whole for whole, _ in shapes),
        _stack(inside for _, inside in shapes),
        _stack(letters),
        torch.tensor([RGB[color] for color in COLORS], dtype=torch.int32),
        torch.tensor([(255, 255, 255) if color in DARK else (0, 0, 0) for color in COLORS], dtype=torch.int32),
    )
    return Sprites(*(tensor.to(device) for tensor in tensors))


def placements(scene: Scene) -> np.ndarray:
    """Tabulate the objects in the areas of a scene, ``(9, 7)`` int64 with columns ``PRESENT`` to ``TOP``.

    Coordinates are relative to the area.
    """
    rows = np.zeros((_AREAS, 7), dtype=np.int64)
    for shape in scene.shapes:
        row, column = divmod(shape.cell, len(COLUMNS))
        rows[shape.cell] = (
            1,
            KINDS.index(shape.kind),
            COLORS.index(shape.color),
            ALL_WIDTHS.index(shape.width),
            LETTERS.index(shape.letter),
            shape.left - column * AREA,
            shape.top - row * AREA,
        )
    return rows


def draw_objects(canvas: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
    """Draw the objects of a batch of scenes.

    Parameters
    ----------
    canvas : torch.Tensor
        ``(B, 3, 336, 336)`` uint8, the backgrounds.
    placed : torch.Tensor
        ``(B, 9, 7)`` int64 on the same device, from :func:`placements`.

    Returns
    -------
    torch.Tensor
        Like ``canvas``.
    """
    bank = sprites(canvas.device)
    pixels = _areas(canvas).to(torch.int32)
    shape = placed[..., KIND] * len(ALL_WIDTHS) + placed[..., WIDTH]
    glyph = placed[..., LETTER] * len(KINDS) * len(ALL_WIDTHS) + shape
    ground = torch.tensor(_OUTLINE, dtype=torch.int32, device=canvas.device).expand(*shape.shape, 3)
    layers = (
        (bank.whole, shape, ground),
        (bank.inside, shape, bank.colors[placed[..., COLOR]]),
        (bank.letter, glyph, bank.inks[placed[..., COLOR]]),
    )
    for masks, index, color in layers:
        cover = _shifted(masks, index, placed)[:, :, None]
        pixels = (pixels * (255 - cover) + color[..., None, None] * cover + 127) // 255
    return _whole_image(pixels.to(torch.uint8))


def patch_areas(placed: torch.Tensor) -> torch.Tensor:
    """Find for each patch the area whose object covers at least a quarter of it.

    Parameters
    ----------
    placed : torch.Tensor
        ``(B, 9, 7)`` int64, from :func:`placements`.

    Returns
    -------
    torch.Tensor
        ``(B, 576)`` int64 in raster order; -1 for background.
    """
    bank = sprites(placed.device)
    cover = _shifted(bank.whole, placed[..., KIND] * len(ALL_WIDTHS) + placed[..., WIDTH], placed)
    covered = F.avg_pool2d((cover > 127).float(), PATCH_SIZE) >= MIN_COVERAGE
    area = torch.arange(_AREAS, device=placed.device)[:, None, None].expand_as(covered)
    return _whole_image(torch.where(covered, area, -1)[:, :, None]).flatten(1)


def render(scene: Scene) -> Image.Image:
    """Draw one scene: an RGB image of 336 x 336 pixels."""
    view = scene.view
    cut = background(scene.split, view.background)[view.top :, view.left :][:IMAGE_SIZE, :IMAGE_SIZE]
    canvas = torch.from_numpy(np.ascontiguousarray(cut[:, ::-1] if view.mirrored else cut)).permute(2, 0, 1)[None]
    drawn = draw_objects(canvas, torch.from_numpy(placements(scene))[None])
    return Image.fromarray(drawn[0].permute(1, 2, 0).contiguous().numpy())


def _shifted(masks: torch.Tensor, index: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
    """Masks ``(B, 9, 112, 112)`` of the chosen sprites at their positions; 0 where there is no object."""
    line = torch.arange(AREA, device=placed.device)
    y = line - placed[..., TOP, None]
    x = line - placed[..., LEFT, None]
    # Sprites end before the last row and column of their area, so these are empty and stand for the outside.
    y, x = (torch.where(v < 0, AREA - 1, v) for v in (y, x))
    places = (index[..., None, None] * AREA + y[..., :, None]) * AREA + x[..., None, :]
    return masks.flatten()[places] * placed[..., PRESENT, None, None].to(masks.dtype)


def _areas(images: torch.Tensor) -> torch.Tensor:
    """``(B, C, side, side)`` to ``(B, 9, C, side / 3, side / 3)``."""
    rows, columns = len(ROWS), len(COLUMNS)
    batch, channels, height, width = images.shape
    split = images.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(batch, _AREAS, channels, height // rows, width // columns)


def _whole_image(areas: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`_areas`."""
    rows, columns = len(ROWS), len(COLUMNS)
    batch, _, channels, height, width = areas.shape
    split = areas.reshape(batch, rows, columns, channels, height, width)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * height, columns * width)


def _shape(kind: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage by an object that fills a box of ``width`` pixels, with and without its outline."""
    side = width * _SUPERSAMPLING
    line = max(1.2, _OUTLINE_WIDTH * width) * _SUPERSAMPLING
    whole, inside = (Image.new("L", (side, side), 0) for _ in range(2))
    if kind == "circle":
        ImageDraw.Draw(whole).ellipse((0, 0, side - 1, side - 1), fill=255)
        ImageDraw.Draw(inside).ellipse((line, line, side - 1 - line, side - 1 - line), fill=255)
    else:
        corners = _box_corners(kind) * (side - 1)
        outline = [tuple(point) for point in corners]
        ImageDraw.Draw(whole).polygon(outline, fill=255)
        ImageDraw.Draw(inside).polygon(outline, fill=255)
        ImageDraw.Draw(inside).line([*outline, *outline[:2]], fill=0, width=round(2 * line), joint="curve")
    return tuple(np.asarray(image.reduce(_SUPERSAMPLING)) for image in (whole, inside))  # type: ignore[return-value]


def _letter(letter: str, kind: str, width: int) -> np.ndarray:
    """Coverage by the letter on an object, around the object's center."""
    side = width * _SUPERSAMPLING
    image = Image.new("L", (side, side), 0)
    middle = (0.5, 0.5) if kind == "circle" else tuple(_middle(kind))
    ImageDraw.Draw(image).text(
        (middle[0] * side, middle[1] * side),
        letter.upper(),
        font=letter_font(round(_LETTER_SIZE * side)),
        fill=255,
        anchor="mm",
        stroke_width=max(1, side // 60),
    )
    return np.asarray(image.reduce(_SUPERSAMPLING))


def _box_corners(kind: str) -> np.ndarray:
    """Corners ``(n, 2)`` of a kind, centered in the unit square and scaled so that the longer side fills it."""
    corners = np.asarray(CORNERS[kind])
    low, high = corners.min(0), corners.max(0)
    return (corners - (low + high) / 2) / (high - low).max() + 0.5


def _middle(kind: str) -> np.ndarray:
    """Position of the letter: the mean of the corners, which for a triangle lies below the center of its box."""
    return _box_corners(kind).mean(0)


def _stack(masks: Iterable[np.ndarray]) -> torch.Tensor:
    """Masks in the upper left corners of areas, ``(n, 112, 112)`` int32."""
    listed = list(masks)
    stacked = np.zeros((len(listed), AREA, AREA), dtype=np.int32)
    for place, mask in zip(stacked, listed, strict=True):
        place[: mask.shape[0], : mask.shape[1]] = mask
    return torch.from_numpy(stacked)
