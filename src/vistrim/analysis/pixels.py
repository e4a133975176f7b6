"""The images among a model's inputs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

NAMES = ("pixel_values", "pixel_values_images")
"""Video-LLaVA uses the second name."""


def pixels_of(inputs: Mapping[str, Any]) -> Tensor | None:
    """Images ``[images, 3, height, width]`` of a single prompt; None if the inputs have only patches."""
    for name in NAMES:
        pixels = inputs.get(name)
        if isinstance(pixels, Tensor) and pixels.dim() >= 4 and pixels.shape[-3] == 3:
            return pixels.flatten(0, -4)
    return None
