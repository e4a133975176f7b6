"""Bad input of ``vistrim calibrate`` ends in one line, if possible before the model is loaded."""

import json
import re

import pytest

from tests.cli.invoke import error_line, vistrim
from tests.cli.test_calibrate import TASKS, calibrate


def test_a_model_that_is_never_right_cannot_lose(checkpoint, tmp_path):
    result = vistrim(
        "calibrate", "gsearch", "--model", checkpoint, "--out", str(tmp_path / "s.json"), *TASKS,
        "--max-new-tokens", "2",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "performance is 0" in result.stderr


def test_flops_that_are_too_few(checkpoint, tmp_path):
    result = calibrate(checkpoint, tmp_path / "s.json", "psigmoid", *TASKS, "--budget", "flops=0.05")
    assert result.exit_code == 2
    assert "psigmoid cannot reach flops=0.05: it reaches from" in error_line(result)


def test_a_budget_that_layer_0_alone_exceeds(checkpoint, tmp_path):
    result = calibrate(checkpoint, tmp_path / "s.json", "psigmoid", *TASKS, "--budget", "tokens=0.15")
    assert result.exit_code == 2
    assert "psigmoid cannot reach tokens=0.15: it reaches from 0.25 to 1" in error_line(result)
    assert not list(tmp_path.iterdir())


def test_the_placeholder_for_images_is_no_part_of_a_question(checkpoint, tmp_path, own):
    own.write_text(json.dumps({"image": "a.png", "prompt": "what <image>"}))
    result = calibrate(checkpoint, tmp_path / "s.json", "psigmoid", "--data", str(own), "--budget", "tokens=0.5")
    assert result.exit_code == 2
    assert "<image>, which stands for images" in error_line(result)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gsearch"], "Missing option '--out'"),
        (["gsearch", "--out", "no/such/place/s.json"], "create it first"),
        (["gsearch", "--out", "."], "is not writable"),
        (["gsearch", "--out", "s.json", "--split", "test"], "choose train or validation"),
        (["gsearch", "--out", "s.json", "--tasks", "colour"], "no task 'colour'"),
        (["gsearch", "--out", "s.json", "--tasks", "easy-vqa"], "leave the task out"),
        (["gsearch", "--out", "s.json", "--objective", "speed"], "must be accuracy or agreement"),
        (["gsearch", "--out", "s.json", "--rows", "all"], "must be last or prompt"),
        (["gsearch", "--out", "s.json", "--error", "1"], "--error"),
        (["gsearch", "--out", "s.json", "--group", "0"], "--group"),
        (["gsearch", "--out", "s.json", "--limit", "0"], "--limit"),
        (["gsearch", "--out", "s.json", "--dtype", "int8"], "choose auto, float32"),
        (["gsearch", "--out", "s.json", "--data", "no.jsonl"], "cannot be read (No such file"),
        (["psigmoid", "--out", "s.json"], "--budget"),
        (["psigmoid", "--out", "s.json", "--budget", "0.5"], "'0.5' is no budget: write tokens=0.33"),
        (["psigmoid", "--out", "s.json", "--budget", "tokens=1.5"], "at most 1.0"),
        (["psigmoid", "--out", "s.json", "--budget", "tokens=0.5", "--trials", "0"], "--trials"),
        (["gserch"], "See `vistrim calibrate --help`"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_wrong_usage(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    result = vistrim("calibrate", *arguments)
    assert result.exit_code == 2
    assert says in error_line(result)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"prompt": "what"}', 'line 2: there is no "image"'),
        ('{"image": "a.png", "prompt": " "}', 'line 2: there is no "prompt"'),
        ('{"image": "a.png", "prompt": "what", "answer": 3}', 'line 2: "answer" must be text'),
        ('{"image": "a.png", "prompt": "what"}', 'line 2: there is no "answer": add the correct one'),
        ('{"image": "b.png", "prompt": "what", "answer": "w"}', "line 2: there is no image file"),
        ('{"image": "own.jsonl", "prompt": "what", "answer": "w"}', "line 2: .* is not an image"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_bad_lines_of_ones_own_questions(tmp_path, own, line, says):
    first = own.read_text().splitlines()[0]
    own.write_text(f"{first}\n{line}\n")
    result = vistrim("calibrate", "gsearch", "--data", str(own), "--out", str(tmp_path / "s.json"))
    assert result.exit_code == 2
    assert re.search(says, error_line(result))


@pytest.mark.usefixtures("no_model")
def test_two_sources_of_questions_and_none(tmp_path, own):
    common = ("calibrate", "gsearch", "--out", str(tmp_path / "s.json"), "--data", str(own))
    assert "leave one out" in error_line(vistrim(*common, "--tasks", "color"))
    own.write_text("\n\n")
    assert "has no questions" in error_line(vistrim(*common))
    own.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in error_line(vistrim(*common))


@pytest.mark.usefixtures("no_model")
def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = vistrim("calibrate", "psigmoid", "--budget", "tokens=0.5", "--out", str(tmp_path / "s.json"))
    assert result.exit_code == 1
    assert "pip install 'vistrim[calibration]'" in error_line(result)
