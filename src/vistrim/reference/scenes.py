"""Seeded scenes of shapes with colors, sizes and letters in a 3 x 3 arrangement of image areas.

A scene is plain data without pixels, from which questions and training targets can be derived exactly.
:mod:`vistrim.reference.rendering` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

KINDS = ("circle", "square", "triangle", "diamond", "star", "cross")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SIZES = ("small", "large")
LETTERS = ("c", "e", "h", "k", "l", "o", "s", "t", "x", "z")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")

#: Radius of the circle around a shape, as a fraction of the image side.
RADII = {"small": 0.11, "large": 0.14}
#: Side of one of the nine areas, as a fraction of the image side.
CELL = 1 / 3

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Difficulty:
    """Density and irregularity of the generated scenes.

    Parameters
    ----------
    min_shapes, max_shapes : int
        Bounds (inclusive) of the number of shapes, at most nine: one per area.
    jitter : float
        Maximum shift of a shape from the center of its area, as a fraction of the image side. It is limited so that
        shapes stay within their areas.
    clutter : int
        Maximum number of strokes in the background.
    """

    min_shapes: int
    max_shapes: int
    jitter: float = 0.015
    clutter: int = 6

    def __post_init__(self) -> None:
        if not 1 <= self.min_shapes <= self.max_shapes <= len(ROWS) * len(COLUMNS):
            raise ValueError(f"need 1 <= min_shapes <= max_shapes <= 9, got {self.min_shapes} and {self.max_shapes}")


#: The curriculum, from single shapes to the full range.
LEVELS = {
    "single": Difficulty(1, 1),
    "pair": Difficulty(1, 2),
    "few": Difficulty(1, 3),
    "several": Difficulty(2, 5),
    "many": Difficulty(3, 8),
    "full": Difficulty(3, 8, jitter=0.06, clutter=12),
}


@dataclass(frozen=True)
class Shape:
    """One shape. ``x``, ``y`` (center) and ``radius`` are fractions of the image side."""

    kind: str
    color: str
    size: str
    letter: str
    cell: int
    x: float
    y: float

    @property
    def radius(self) -> float:
        return RADII[self.size]

    @property
    def row(self) -> str:
        return ROWS[self.cell // len(COLUMNS)]

    @property
    def column(self) -> str:
        return COLUMNS[self.cell % len(COLUMNS)]

    @property
    def area(self) -> str:
        """Name of the image area that holds the shape, for example ``"top left"``."""
        return f"{self.row} {self.column}"


@dataclass(frozen=True)
class Stroke:
    """A line of background clutter; coordinates and width are fractions of the image side."""

    start: tuple[float, float]
    end: tuple[float, float]
    width: float
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """Shapes in raster order (area by area, row by row) on a background.

    ``background`` holds the RGB colors of the upper and lower edge; the renderer blends between them.
    """

    shapes: tuple[Shape, ...]
    background: tuple[tuple[int, int, int], tuple[int, int, int]]
    strokes: tuple[Stroke, ...]


def generate_scene(split: str, index: int, difficulty: Difficulty) -> Scene:
    """Generate scene number ``index`` of a split. The same arguments always give the same scene.

    The name of the split is part of the seed, so that splits never share a random stream.

    Raises
    ------
    ValueError
        If ``split`` is not one of ``SPLITS``.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    rng = Random(f"scene:{split}:{index}")
    count = rng.randint(difficulty.min_shapes, difficulty.max_shapes)
    cells = sorted(rng.sample(range(len(ROWS) * len(COLUMNS)), count))
    letters = rng.sample(LETTERS, count)
    shapes = tuple(
        _random_shape(rng, cell, letter, difficulty.jitter) for cell, letter in zip(cells, letters, strict=True)
    )
    gray = rng.randint(190, 235)
    background = (_tint(rng, gray), _tint(rng, gray - rng.randint(0, 40)))
    strokes = tuple(_random_stroke(rng, gray) for _ in range(rng.randint(0, difficulty.clutter)))
    return Scene(shapes, background, strokes)


def _random_shape(rng: Random, cell: int, letter: str, jitter: float) -> Shape:
    size = rng.choice(SIZES)
    reach = min(jitter, CELL / 2 - RADII[size])
    row, column = divmod(cell, len(COLUMNS))
    return Shape(
        kind=rng.choice(KINDS),
        color=rng.choice(COLORS),
        size=size,
        letter=letter,
        cell=cell,
        x=(column + 0.5) * CELL + rng.uniform(-reach, reach),
        y=(row + 0.5) * CELL + rng.uniform(-reach, reach),
    )


def _random_stroke(rng: Random, gray: int) -> Stroke:
    x, y = rng.random(), rng.random()
    return Stroke(
        start=(x, y),
        end=(x + rng.uniform(-0.3, 0.3), y + rng.uniform(-0.3, 0.3)),
        width=rng.uniform(0.004, 0.015),
        color=_tint(rng, gray - rng.randint(15, 60)),
    )


def _tint(rng: Random, gray: int) -> tuple[int, int, int]:
    """A pale color around a gray level."""
    red, green, blue = (max(0, min(255, gray + rng.randint(-14, 14))) for _ in range(3))
    return red, green, blue
