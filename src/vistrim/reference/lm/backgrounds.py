"""Backgrounds that are not blank: gradients, strokes, textures, and crops of photographs.

Every split has its own photographs, so that no background of a test scene was seen in training.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from vistrim.errors import MissingPackageError
from vistrim.reference.lm.scenes import BACKGROUND_SIZE

#: Photographs by split. Their sources are listed in ``LICENSES.md`` in the same folder.
PHOTOGRAPHS = {
    "train": ("astronaut", "brick", "camera", "china", "clock", "coffee", "grass", "retina"),
    "validation": ("gravel", "rocket"),
    "test": ("chelsea", "coins", "flower", "hubble"),
}
_PACKAGE = "vistrim_reference_lm"


@lru_cache(maxsize=32)
def background(split: str, number: int) -> np.ndarray:
    """Generate background ``number`` of a split, reproducibly: ``(448, 448, 3)`` uint8, black for -1.

    Raises
    ------
    MissingPackageError
        If the distribution with the photographs is not installed.
    """
    if number < 0:
        return np.zeros((BACKGROUND_SIZE, BACKGROUND_SIZE, 3), dtype=np.uint8)
    rng = Random(f"reference-lm background:{split}:{number}")
    (draw,) = rng.choices((_photograph, _texture, _gradient), (5, 3, 2))
    image = draw(rng, split)
    if draw is not _photograph or rng.random() < 0.3:
        _add_strokes(image, rng)
    return np.array(image)


@lru_cache(maxsize=16)
def photograph(name: str) -> Image.Image:
    """Load one of ``PHOTOGRAPHS``, RGB."""
    try:
        data = files(_PACKAGE).joinpath("photographs", f"{name}.jpg").read_bytes()
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "the photographs of reference-lm are not installed: run `pip install packages/vistrim-reference-lm`"
        ) from error
    return Image.open(BytesIO(data)).convert("RGB")


def _photograph(rng: Random, split: str) -> Image.Image:
    """A square crop of a photograph with random brightness and saturation."""
    whole = photograph(rng.choice(PHOTOGRAPHS[split]))
    side = int(rng.uniform(0.35, 1.0) * min(whole.size))
    left, top = (rng.randint(0, length - side) for length in whole.size)
    crop = whole.resize(
        (BACKGROUND_SIZE, BACKGROUND_SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )
    pixels = np.asarray(crop, dtype=np.float32)
    gray = pixels.mean(2, keepdims=True)
    colorful = gray + rng.uniform(0.3, 1.2) * (pixels - gray)
    return _image((colorful - 128) * rng.uniform(0.6, 1.1) + 128 + rng.uniform(-40, 40))


def _texture(rng: Random, _: str) -> Image.Image:
    """Two colors blended by smooth noise at several scales, or by stripes or checks with some noise."""
    noise = np.zeros((BACKGROUND_SIZE, BACKGROUND_SIZE), dtype=np.float32)
    values = np.random.default_rng(rng.getrandbits(32))
    for cells in (rng.randint(3, 8), rng.randint(12, 30), rng.randint(60, 150)):
        coarse = Image.fromarray(values.random((cells, cells), dtype=np.float32))
        noise += rng.uniform(0.1, 1.0) * np.asarray(
            coarse.resize((BACKGROUND_SIZE, BACKGROUND_SIZE), Image.Resampling.BICUBIC)
        )
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    y, x = np.mgrid[:BACKGROUND_SIZE, :BACKGROUND_SIZE].astype(np.float32)
    pitch, turn = rng.uniform(8, 60), rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    patterns = {
        "noise": noise,
        "stripes": np.sin(2 * np.pi * along / pitch) * 0.5 + 0.5,
        "checks": ((along // pitch + across // pitch) % 2),
        "waves": np.sin(2 * np.pi * (along / pitch + noise * rng.uniform(0.5, 3))) * 0.5 + 0.5,
    }
    pattern = patterns[rng.choice(tuple(patterns))] * rng.uniform(0.3, 1) + 0.3 * noise
    return _blend(pattern[..., None], _color(rng), _color(rng))


def _gradient(rng: Random, _: str) -> Image.Image:
    """A linear gradient between two colors in a random direction."""
    y, x = np.mgrid[:BACKGROUND_SIZE, :BACKGROUND_SIZE].astype(np.float32) / BACKGROUND_SIZE
    turn = rng.uniform(0, 2 * np.pi)
    along = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn) + 0.5
    return _blend(along[..., None], _color(rng), _color(rng))


def _add_strokes(image: Image.Image, rng: Random) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 14)):
        x, y = (rng.uniform(0, BACKGROUND_SIZE) for _ in range(2))
        across, down = (rng.uniform(-150, 150) for _ in range(2))
        color = tuple(int(value) for value in _color(rng))
        width = rng.randint(1, 6)
        if rng.random() < 0.6:
            draw.line((x, y, x + across, y + down), fill=color, width=width)
        else:
            start = rng.uniform(0, 360)
            box = (x, y, x + abs(across) + 20, y + abs(down) + 20)
            draw.arc(box, start, start + rng.uniform(30, 160), fill=color, width=width)


def _color(rng: Random) -> np.ndarray:
    """A muted color, in contrast to the strong colors of the objects."""
    gray = rng.uniform(40, 235)
    return np.array([gray + rng.uniform(-30, 30) for _ in range(3)], dtype=np.float32).clip(0, 255)


def _blend(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> Image.Image:
    return _image(first + (second - first) * share.clip(0, 1))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(pixels).clip(0, 255).astype(np.uint8))
