import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import vistrim as library
from tests.cli import checkpoint as builder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    return str(builder.save(tmp_path_factory.mktemp("model") / "tiny-llava"))


@pytest.fixture
def image(tmp_path) -> str:
    return save_image(tmp_path / "photo.png")


@pytest.fixture
def no_model(monkeypatch):
    """Cheap checks run before a model is loaded."""
    monkeypatch.setattr(library, "load", lambda *_, **__: pytest.fail("the model was loaded"))


@pytest.fixture
def own(tmp_path):
    """A file of two questions; images lie beside it."""
    save_image(tmp_path / "a.png")
    lines = [{"image": "a.png", "prompt": "what is this", "answer": "w9"}, {"image": "a.png", "prompt": "what is w33"}]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path


def save_image(path: Path) -> str:
    picture = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(picture).ellipse((4, 4, 20, 20), fill="red")
    picture.save(path)
    return str(path)
