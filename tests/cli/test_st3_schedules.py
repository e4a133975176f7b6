"""A note tells that st3 is the closed form where a model has fitted schedules beside it."""

import shutil

import pytest

from tests.cli.invoke import vistrim

NOTE = "note: tiny-llava has fitted schedules of st3; st3:schedule=auto uses them\n"


@pytest.fixture
def fitted(checkpoint, tmp_path) -> str:
    """A model with a schedule that is not read here."""
    model = tmp_path / "fitted" / "tiny-llava"
    shutil.copytree(checkpoint, model)
    (model / "vistrim").mkdir()
    (model / "vistrim" / "st3-flops-0.5.json").touch()
    return str(model)


@pytest.mark.usefixtures("undrawn", "few_objects")
@pytest.mark.parametrize("command", ["run", "eval", "batch"])
def test_plain_st3_is_noted_once_on_a_model_with_schedules(fitted, checkpoint, image, own, tmp_path, command):
    arguments = {
        "run": (image, "-p", "what", "--method", "st3"),
        # st3 by default.
        "eval": ("--tasks", "color", "--limit", "1", "--out", str(tmp_path / "out")),
        "batch": (str(own), "--out", str(tmp_path / "out")),
    }[command]
    short = ("--max-new-tokens", "2")
    result = vistrim(command, *arguments, *short, "--model", fitted)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == NOTE
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert vistrim(command, *arguments, *short, "--model", checkpoint).stderr == ""


@pytest.mark.usefixtures("few_objects")
def test_other_forms_of_st3_are_not_noted(fitted, image):
    for method in ("st3:preset=compact", "uniform:keep=4"):
        result = vistrim("run", image, "-p", "what", "--model", fitted, "--method", method, "--max-new-tokens", "2")
        assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.usefixtures("few_objects")
def test_the_server_notes_it_as_well(fitted, monkeypatch):
    pytest.importorskip("fastapi")
    monkeypatch.setattr("vistrim.cli.serve.listen", lambda *_: None)
    assert NOTE in vistrim("serve", fitted, "--method", "st3", "--port", "0").stderr
