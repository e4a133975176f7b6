"""Seeded scenes of small objects, each at a random position in one of the nine image areas."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from vistrim.reference.scenes import COLORS, COLUMNS, KINDS, LETTERS, ROWS, SPLITS, Shape

#: Side of an image and of a patch, in pixels. The size is fixed, so that the patches of an object are exact.
IMAGE_SIZE, PATCH_SIZE = 336, 14
GRID = IMAGE_SIZE // PATCH_SIZE
#: Side of one of the nine areas, in pixels. Areas are aligned with patches.
AREA = IMAGE_SIZE // len(COLUMNS)

#: Widths of an object in pixels (2 to 6 patches), by the word for its size.
WIDTHS = {"small": (28,), "medium": (42,), "large": (56, 70, 84)}
SIZES = tuple(WIDTHS)
#: Frequency of each size: about half, a third, and the rest.
_SIZE_WEIGHTS = (3, 2, 1)

#: Number of backgrounds of a split. Each scene crops and flips one of them.
BACKGROUNDS = 1024
#: Side of a background before cropping, in pixels.
BACKGROUND_SIZE = 448

#: Minimum and maximum number of objects in a scene. The first levels are for training.
LEVELS = {"pair": (1, 2), "several": (2, 5), "full": (3, 9)}


@dataclass(frozen=True)
class Placed(Shape):
    """An object. ``left``, ``top`` and the side ``width`` of its bounding box are in pixels."""

    left: int
    top: int
    width: int


@dataclass(frozen=True)
class View:
    """Crop of a background.

    Parameters
    ----------
    background : int
        Number of the background in its split; -1 for black.
    left, top : int
        Offset of the crop in pixels.
    mirrored : bool
        Whether the crop is flipped horizontally.
    """

    background: int
    left: int
    top: int
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """Objects in raster order (area by area, row by row) on a background of their split."""

    split: str
    shapes: tuple[Placed, ...]
    view: View


def generate_scene(split: str, index: int, level: str = "full") -> Scene:
    """Generate scene number ``index`` of a split. The same arguments always give the same scene.

    Parameters
    ----------
    split : str
        "train", "validation" or "test". It is part of the seed and determines the photographs in the background.
    index : int
        Number of the scene.
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
