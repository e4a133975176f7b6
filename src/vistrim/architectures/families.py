"""Which families of models differ from what discovery finds by itself, and where they are described."""

from collections.abc import Callable
from typing import Any

from vistrim.architectures import llava
from vistrim.architectures.pictures import unknown
from vistrim.architectures.spec import Images

FAMILIES: dict[str, Callable[[Any], Images]] = {
    "llava": llava.images,
}
"""Model type (``config.model_type``) to the function that says what becomes of its images."""


def images_of(model: Any) -> Images:
    """What becomes of a model's images."""
    describe = FAMILIES.get(model.config.model_type)
    return Images(shapes=unknown) if describe is None else describe(model)
