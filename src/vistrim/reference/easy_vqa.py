"""easy-VQA, an external data set of images and questions (V. Zhou, 2019, MIT; PyPI package ``easy-vqa``).

It has images of 64 x 64 pixels with one shape each, 24 kinds of questions, 13 answers, and its own train and test
split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from vistrim.errors import MissingPackageError
from vistrim.reference.tasks import Question

TASK = "easy-vqa"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Picture:
    """One image with all its questions."""

    path: Path
    questions: tuple[Question, ...]

    def open(self) -> Image.Image:
        """Return the image, RGB."""
        with Image.open(self.path) as image:
            return image.convert("RGB")


@lru_cache(maxsize=2)
def pictures(split: str) -> tuple[Picture, ...]:
    """List all images of a split, in the order of their numbers.

    Raises
    ------
    ValueError
        If ``split`` is not one of ``SPLITS``.
    MissingPackageError
        If the package ``easy-vqa`` is not installed.
    """
    if split not in SPLITS:
        raise ValueError(f"easy-VQA has only the splits {' and '.join(SPLITS)}, not {split!r}: leave the task out")
    package = _package()
    read: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "train": (package.get_train_questions, package.get_train_image_paths),
        "test": (package.get_test_questions, package.get_test_image_paths),
    }
    questions, paths = (function() for function in read[split])
    asked: dict[int, list[Question]] = defaultdict(list)
    for prompt, answer, image in zip(*questions, strict=True):
        asked[image].append(Question(TASK, prompt, answer))
    return tuple(Picture(Path(paths[image]), tuple(asked[image])) for image in sorted(paths))


def _package() -> Any:
    try:
        import easy_vqa
    except ImportError as error:
        raise MissingPackageError("the images of easy-VQA are not installed: run `pip install easy-vqa`") from error
    return easy_vqa
