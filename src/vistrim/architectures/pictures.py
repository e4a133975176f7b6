"""How visual tokens lie in pictures, read off what the encoder of images was given."""

from collections.abc import Mapping, Sequence
from typing import Any

from vistrim.architectures.spec import ReadShapes
from vistrim.core.layout import Grid, ImageShape, Picture


def unknown(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
    """Each entry of the features is a picture without a known grid."""
    return [ImageShape((Picture(n),)) for n in lengths]


def of_one_grid(grid: Grid) -> ReadShapes:
    """Every picture has the same grid; an entry of the features is one picture or several."""
    rows, columns = grid

    def shapes(modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        found = []
        for n in lengths:
            pictures, rest = divmod(n, rows * columns)
            found.append(ImageShape((Picture.of(grid),) * pictures if not rest else (Picture(n),)))
        return found

    return shapes
