"""The pictures among a model's inputs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

NAMES = ("pixel_values", "pixel_values_images")
"""Video-LLaVA has the second."""


def pixels_of(inputs: Mapping[str, Any]) -> Tensor | None:
    """Pictures ``[pictures, 3, height, width]`` of a single prompt; None if patches are all that there is."""
    for name in NAMES:
        pixels = inputs.get(name)
        if isinstance(pixels, Tensor) and pixels.dim() >= 4 and pixels.shape[-3] == 3:
            return pixels.flatten(0, -4)
    return None
