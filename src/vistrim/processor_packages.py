"""Packages that processors of transformers need, in addition to the dependencies of vistrim."""

import importlib.util
from typing import Any

import transformers
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

PACKAGES = ("torchvision", "num2words")
"""The packages in the extra ``processors``."""
INSTALL = "pip install 'vistrim[processors]'"

_IMPORTED_BY = {"SmolVLMProcessor": "num2words"}
"""Processor class to packages that it needs only when it is constructed."""


def missing_packages(model_type: str) -> tuple[str, ...]:
    """List the missing packages that the default processor of a model family needs.

    Parameters
    ----------
    model_type : str
        Model type in transformers.

    Returns
    -------
    tuple of str
        Packages that are not installed.
    """
    return tuple(package for package in PACKAGES if package in _needed(model_type) and not _installed(package))


def named_packages(error: BaseException) -> tuple[str, ...]:
    """List the packages of the extra that an import error of transformers names."""
    text = str(error).lower() if isinstance(error, ImportError) else ""
    return tuple(package for package in PACKAGES if package in text and not _installed(package))


def _needed(model_type: str) -> set[str]:
    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    if name is None:
        return set()
    processor: Any = getattr(transformers, name)
    # transformers replaces a class by a dummy if its packages are missing.
    missing = getattr(processor, "_backends", ())
    needed = {*missing, _IMPORTED_BY.get(name, "")}
    images = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
    only_torchvision = isinstance(images, dict) and "pil" not in images
    videos = (
        model_type in VIDEO_PROCESSOR_MAPPING_NAMES and not missing and "video_processor" in processor.get_attributes()
    )
    # Every video processor needs it, and transformers loads it together with the others.
    return needed | {"torchvision"} if only_torchvision or videos else needed


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
