"""Packages that transformers needs for the processor of a model, beside those that vistrim depends on."""

import importlib.util
from typing import Any

import transformers
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

PACKAGES = ("torchvision", "num2words")
"""Those in the extra ``processors``."""
INSTALL = "pip install 'vistrim[processors]'"

_IMPORTED_BY = {"SmolVLMProcessor": "num2words"}
"""Processor class to what it asks for only when it is made."""


def missing_packages(model_type: str) -> tuple[str, ...]:
    """Packages that are not installed, and that the usual processor of a family cannot be loaded without.

    Parameters
    ----------
    model_type : str
        transformers' name for the family.
    """
    return tuple(package for package in PACKAGES if package in _needed(model_type) and not _installed(package))


def named_packages(error: BaseException) -> tuple[str, ...]:
    """Packages of the extra whose lack an error of transformers is about."""
    text = str(error).lower() if isinstance(error, ImportError) else ""
    return tuple(package for package in PACKAGES if package in text and not _installed(package))


def _needed(model_type: str) -> set[str]:
    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    if name is None:
        return set()
    processor: Any = getattr(transformers, name)
    # transformers puts a dummy in the place of a class whose packages are missing.
    missing = getattr(processor, "_backends", ())
    needed = {*missing, _IMPORTED_BY.get(name, "")}
    images = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
    only_torchvision = isinstance(images, dict) and "pil" not in images
    videos = (
        model_type in VIDEO_PROCESSOR_MAPPING_NAMES and not missing and "video_processor" in processor.get_attributes()
    )
    # No video processor does without it, and transformers loads them with the others.
    return needed | {"torchvision"} if only_torchvision or videos else needed


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
