"""Seeded scenes of small objects, each at a free place in one of the nine image areas."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from vistrim.reference.scenes import COLORS, COLUMNS, KINDS, LETTERS, ROWS, SPLITS, Shape

#: Side of an image and of a patch, in pixels. Nothing is drawn at any other size: an object's patches are exact.
IMAGE_SIZE, PATCH_SIZE = 336, 14
GRID = IMAGE_SIZE // PATCH_SIZE
#: Side of one of the nine areas in pixels; areas end where patches end.
AREA = IMAGE_SIZE // len(COLUMNS)

#: Widths of an object in pixels (2 to 6 patches), by the word for its size.
WIDTHS = {"small": (28,), "medium": (42,), "large": (56, 70, 84)}
SIZES = tuple(WIDTHS)
#: How often each size comes: about half, a third, and the rest.
_SIZE_WEIGHTS = (3, 2, 1)

#: Backgrounds of a split: scenes choose among so many, each cropped and flipped anew.
BACKGROUNDS = 1024
#: Side of a background before cropping, in pixels.
BACKGROUND_SIZE = 448

#: Fewest and most objects of a scene. The first levels are for training.
LEVELS = {"pair": (1, 2), "several": (2, 5), "full": (3, 9), "dense": (9, 9)}


@dataclass(frozen=True)
class Placed(Shape):
    """An object; ``left`` and ``top`` are pixels, ``width`` is the side of the box that it fills, in pixels."""

    left: int
    top: int
    width: int


@dataclass(frozen=True)
class View:
    """Which part of which background is seen.

    Parameters
    ----------
    background : int
        Number of the background in its split; -1 for black.
    left, top : int
        Pixels cut off.
    mirrored : bool
        Left and right swapped, after cutting.
    """

    background: int
    left: int
    top: int
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """Objects in raster order (area by area, row by row) before a background of their split."""

    split: str
    shapes: tuple[Placed, ...]
    view: View


def generate_scene(split: str, index: int, level: str = "full") -> Scene:
    """Scene number ``index`` of a split: the same arguments always give the same scene.

    Parameters
    ----------
    split : str
        "train", "validation" or "test". Part of the seed, and decides which photographs lie behind the objects.
    index : int
    level : str
        A name in ``LEVELS``.

    Raises
    ------
    ValueError
        If there is no such split or level.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: choose {', '.join(LEVELS)}")
    rng = Random(f"reference-lm scene:{split}:{index}")
    count = rng.randint(*LEVELS[level])
    areas = sorted(rng.sample(range(len(ROWS) * len(COLUMNS)), count))
    letters = rng.sample(LETTERS, count)
    shapes = tuple(_random_object(rng, area, letter) for area, letter in zip(areas, letters, strict=True))
    spare = BACKGROUND_SIZE - IMAGE_SIZE
    view = View(rng.randrange(BACKGROUNDS), rng.randint(0, spare), rng.randint(0, spare), rng.random() < 0.5)
    return Scene(split, shapes, view)


def _random_object(rng: Random, area: int, letter: str) -> Placed:
    (size,) = rng.choices(SIZES, _SIZE_WEIGHTS)
    width = rng.choice(WIDTHS[size])
    row, column = divmod(area, len(COLUMNS))
    left = column * AREA + rng.randint(0, AREA - width)
    top = row * AREA + rng.randint(0, AREA - width)
    return Placed(
        kind=rng.choice(KINDS),
        color=rng.choice(COLORS),
        size=size,
        letter=letter,
        cell=area,
        x=(left + width / 2) / IMAGE_SIZE,
        y=(top + width / 2) / IMAGE_SIZE,
        left=left,
        top=top,
        width=width,
    )
