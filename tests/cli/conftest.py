from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.cli import checkpoint as builder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    return str(builder.save(tmp_path_factory.mktemp("model") / "tiny-llava"))


@pytest.fixture
def image(tmp_path) -> str:
    return save_image(tmp_path / "photo.png")


def save_image(path: Path) -> str:
    picture = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(picture).ellipse((4, 4, 20, 20), fill="red")
    picture.save(path)
    return str(path)
