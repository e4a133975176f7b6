"""Errors of the untouched model are one line; errors of this package keep their traceback."""

import pytest
from transformers.models.clip.modeling_clip import CLIPVisionModel

from tests.cli.invoke import error_line, vistrim


@pytest.fixture
def broken(monkeypatch):
    def fail(*_, **__):
        raise IndexError("an image of\none token")

    monkeypatch.setattr(CLIPVisionModel, "forward", fail)


def commands(checkpoint, image, folder):
    model = ("--model", checkpoint)
    calibrate = (*model, "--tasks", "short", "--limit", "2")
    return {
        "run": ("run", image, "-p", "what is this", *model),
        "compare": ("run", image, "-p", "what is this", *model, "--compare"),
        "bench": ("bench", *model, "--text-tokens", "20", "--out", str(folder / "bench")),
        "yopo": ("calibrate", "yopo", *calibrate, "--out", str(folder / "heads")),
        "dyvte": ("calibrate", "dyvte", *model, "--tasks", "short", "--limit", "4", "--out", str(folder / "routers")),
        "gsearch": ("calibrate", "gsearch", *calibrate, "--out", str(folder / "rates.json")),
    }


@pytest.mark.parametrize("name", ["run", "compare", "bench", "yopo", "dyvte", "gsearch"])
def test_an_error_of_the_model(name, checkpoint, image, tmp_path, broken):
    result = vistrim(*commands(checkpoint, image, tmp_path)[name])
    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(
        "error: the model or its processor fails on these inputs (IndexError: an image of one token)"
    )


def test_an_error_of_ours_is_no_error_of_the_model(monkeypatch, checkpoint, image):
    monkeypatch.setattr("vistrim.engine.engine.read_prompt", None)
    with pytest.raises(TypeError):
        vistrim("run", image, "-p", "what is this", "--model", checkpoint)


def test_one_line(checkpoint, image, broken):
    assert "an image of one token" in error_line(vistrim("run", image, "-p", "what is this", "--model", checkpoint))
