"""Rendering of scenes with Pillow, and the shape under each patch."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vistrim.reference.scenes import Scene, Shape

RGB = {
    "red": (214, 40, 40),
    "green": (38, 150, 60),
    "blue": (40, 80, 214),
    "yellow": (245, 212, 30),
    "purple": (140, 50, 170),
    "orange": (245, 130, 25),
}
#: Letters are white on the dark colors and black on the others.
DARK = frozenset({"blue", "purple"})
#: Font size as a fraction of the image side.
LETTER_SIZE = 0.14
#: Supersampling factor for smooth edges.
SUPERSAMPLING = 2
#: Share of a patch that a shape must cover to be assigned to it.
MIN_COVERAGE = 0.25
_SUBPIXELS = 4

Point = tuple[float, float]


def render(scene: Scene, resolution: int = 144) -> Image.Image:
    """Draw a scene.

    Parameters
    ----------
    scene : Scene
        The scene.
    resolution : int
        Side of the square image in pixels.

    Returns
    -------
    PIL.Image.Image
        RGB image of ``resolution`` x ``resolution`` pixels.
    """
    side = resolution * SUPERSAMPLING
    image = _gradient(scene.background, side)
    draw = ImageDraw.Draw(image)
    for stroke in scene.strokes:
        draw.line(
            _scaled((stroke.start, stroke.end), side), fill=stroke.color, width=max(1, round(stroke.width * side))
        )
    for shape in scene.shapes:
        _draw_shape(draw, shape, side, RGB[shape.color])
        draw.text(
            (shape.x * side, shape.y * side),
            shape.letter.upper(),
            font=letter_font(round(LETTER_SIZE * side)),
            fill="white" if shape.color in DARK else "black",
            anchor="mm",
            stroke_width=side // 200,
        )
    return image.reduce(SUPERSAMPLING)


def patch_owners(scene: Scene, grid: int) -> np.ndarray:
    """Find the shape under each patch.

    Parameters
    ----------
    scene : Scene
        The scene.
    grid : int
        Patches per image side.

    Returns
    -------
    numpy.ndarray
        ``(grid * grid,)`` int64 in raster order: index into ``scene.shapes``, -1 for background.
    """
    side = grid * _SUBPIXELS
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    for index, shape in enumerate(scene.shapes):
        _draw_shape(draw, shape, side, index + 1)
    pixels = np.asarray(image).reshape(grid, _SUBPIXELS, grid, _SUBPIXELS)
    # Shapes never share an area, and areas are aligned with patches, so a patch shows at most one shape.
    owner = pixels.max(axis=(1, 3)).astype(np.int64) - 1
    coverage = (pixels > 0).mean(axis=(1, 3))
    return np.where(coverage >= MIN_COVERAGE, owner, -1).reshape(-1)


def _gradient(colors: tuple[tuple[int, int, int], tuple[int, int, int]], side: int) -> Image.Image:
    top, bottom = (np.asarray(color, dtype=np.float32) for color in colors)
    blend = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    column = np.round(top + (bottom - top) * blend).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(column[:, None], (side, side, 3))))


@lru_cache(maxsize=8)
def letter_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_shape(draw: ImageDraw.ImageDraw, shape: Shape, side: int, fill: tuple[int, int, int] | int) -> None:
    if shape.kind == "circle":
        box = (
            (shape.x - shape.radius, shape.y - shape.radius),
            (shape.x + shape.radius, shape.y + shape.radius),
        )
        draw.ellipse(_scaled(box, side), fill=fill)
    else:
        draw.polygon(_scaled(outline(shape), side), fill=fill)


def outline(shape: Shape) -> tuple[Point, ...]:
    """Compute the corners of a shape other than a circle, as fractions of the image side, all within its radius."""
    corners = CORNERS[shape.kind]
    return tuple((shape.x + shape.radius * x, shape.y + shape.radius * y) for x, y in corners)


def _scaled(points: tuple[Point, ...], side: int) -> list[Point]:
    return [(x * side, y * side) for x, y in points]


def _regular(corners: int, turn: float, radii: tuple[float, ...] = (1.0,)) -> tuple[Point, ...]:
    """Corners around a circle, the first one at ``turn`` degrees (clockwise from the right)."""
    angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
    return tuple(
        (radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)
    )


_ARM, _REACH = 0.36, 0.92
CORNERS: dict[str, tuple[Point, ...]] = {
    "square": ((-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)),
    "triangle": _regular(3, -90),
    "diamond": ((0.0, -1.0), (0.85, 0.0), (0.0, 1.0), (-0.85, 0.0)),
    "star": _regular(10, -90, (1.0, 0.58)),
    "cross": (
        (-_ARM, -_REACH),
        (_ARM, -_REACH),
        (_ARM, -_ARM),
        (_REACH, -_ARM),
        (_REACH, _ARM),
        (_ARM, _ARM),
        (_ARM, _REACH),
        (-_ARM, _REACH),
        (-_ARM, _ARM),
        (-_REACH, _ARM),
        (-_REACH, -_ARM),
        (-_ARM, -_ARM),
    ),
}
