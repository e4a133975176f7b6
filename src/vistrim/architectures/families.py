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


CANNOT: dict[str, str] = {
    "granite4_vision": "adds image features to its visual tokens between the layers, and cannot be told which are left",
}
"""Model type to what such a model does that no structure shows, and that trimming would break."""


VIDEOS_IN_PLACES_OF_IMAGES = ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")
"""Model types whose prompts hold the image placeholder for features of videos too."""


def images_of(model: Any) -> Images:
    """What becomes of a model's images."""
    describe = FAMILIES.get(model.config.model_type)
    return Images(shapes=unknown) if describe is None else describe(model)
