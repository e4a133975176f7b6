"""``vistrim calibrate dyvte``: from a model to routers that it can be trimmed with."""

import json

import pytest

from tests.cli.conftest import save_image
from tests.cli.invoke import vistrim as invoke
from vistrim import DyVTE, load, trim

pytestmark = pytest.mark.slow

TASKS = ["--tasks", "color,count"]
SMALL = ["--limit", "6", "--width", "4", "--epochs", "2"]


def calibrate(checkpoint, out, *more):
    tasks = [] if "--tasks" in more else TASKS
    return invoke("calibrate", "dyvte", "--model", checkpoint, "--out", str(out), *tasks, *SMALL, *more)


def test_routers_for_a_model(checkpoint, image, tmp_path):
    out = tmp_path / "routers.safetensors"
    result = calibrate(checkpoint, out)
    assert result.exit_code == 0, result.stderr
    assert f"--method dyvte:routers={out}" in result.stdout
    model, _ = load(checkpoint)
    trim(model, DyVTE(str(out)))
    ran = invoke(
        "run", image, "-p", "what is this", "--model", checkpoint, "--method", f"dyvte:routers={out}", "--json"
    )
    assert ran.exit_code == 0, ran.stderr
    assert len(json.loads(ran.stdout)["report"]["exit_layers"]) == 1
    # Another model's layers or name do not fit.
    refused = invoke("run", image, "-p", "what", "--model", "reference-small", "--method", f"dyvte:routers={out}")
    assert refused.exit_code == 2
    assert "was made for a model with 'tiny-llava'" in refused.stderr


def test_measurements_are_kept(checkpoint, tmp_path):
    out = tmp_path / "routers.safetensors"
    assert calibrate(checkpoint, out).exit_code == 0
    measured = {path.name: path.stat().st_mtime_ns for path in (tmp_path / f"{out.name}.progress").iterdir()}
    again = calibrate(checkpoint, out, "--force", "--rule", "paper", "--threshold", "0.5", "--json")
    assert again.exit_code == 0, again.stderr
    notes = json.loads(again.stdout)
    assert notes["rule"] == "paper, threshold 0.5"
    assert notes["questions"] == 12
    assert measured == {path.name: path.stat().st_mtime_ns for path in (tmp_path / f"{out.name}.progress").iterdir()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "mine"], "choose code or paper"),
        (["--rule", "paper"], "needs a --threshold"),
        (["--threshold", "1"], "leave out --threshold"),
        (["--split", "test"], "choose train or validation"),
        (["--tasks", "colour"], "no task 'colour'"),
        (["--width", "0"], "width"),
        (["--data", "no.jsonl"], "--data and --tasks"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_loaded(tmp_path, options, message):
    result = calibrate("no/such/model", tmp_path / "routers", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "there").write_text("mine")
    result = calibrate("no/such/model", tmp_path / "there")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    result = calibrate("no/such/model", tmp_path / "nowhere" / "routers")
    assert result.exit_code == 2
    assert "create it first" in result.stderr


def own(tmp_path, answer, lines=1):
    save_image(tmp_path / "photo.png")
    data = tmp_path / "mine.jsonl"
    line = json.dumps({"image": "photo.png", "prompt": "what is this", "answer": answer})
    data.write_text("\n".join([line] * lines))
    return data


def test_too_few_questions_train_nothing(checkpoint, tmp_path):
    out = tmp_path / "routers"
    arguments = ("--model", checkpoint, "--out", str(out), "--data", str(own(tmp_path, "w9")))
    result = invoke("calibrate", "dyvte", *arguments)
    assert result.exit_code == 2
    assert "give 10 or more" in result.stderr
    assert not out.exists()


def test_an_answer_with_the_placeholder_is_refused(checkpoint, tmp_path):
    arguments = ("--out", str(tmp_path / "routers"), "--data", str(own(tmp_path, "w9 <image>", 10)))
    result = invoke("calibrate", "dyvte", "--model", checkpoint, *arguments)
    assert result.exit_code == 2
    assert "contains <image>" in result.stderr


def test_damaged_measurements_are_named(checkpoint, tmp_path):
    out = tmp_path / "routers"
    assert calibrate(checkpoint, out).exit_code == 0
    (measured,) = (tmp_path / "routers.progress").iterdir()
    measured.write_text("damaged")
    result = calibrate(checkpoint, out, "--force")
    assert result.exit_code == 1
    assert f"{measured} is damaged: delete it" in " ".join(result.stderr.split())
