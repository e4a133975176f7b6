"""``vistrim calibrate yopo``: from a model to a mask of heads that it can be trimmed with."""

import json
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.cli.invoke import error_line, vistrim

QUESTIONS = ("--tasks", "color,count", "--limit", "2")


def calibrate(*arguments: str) -> Any:
    return vistrim("calibrate", "yopo", *arguments)


def test_the_method_loads_the_file(checkpoint, image, tmp_path):
    out = tmp_path / "heads.safetensors"
    result = calibrate("--model", checkpoint, *QUESTIONS, "--keep", "0.6", "--out", str(out), "--json")
    found = json.loads(result.stdout)
    heads = load_file(out)["heads"]
    assert found["active"] == heads.sum(1).tolist()
    assert found["share"] == pytest.approx(0.6)
    assert found["prompts"] == 4
    run = vistrim("run", image, "-p", "what", "--model", checkpoint, "--method", f"yopo:heads={out}", "--json")
    assert run.exit_code == 0
    shown = calibrate(
        "--model", checkpoint, *QUESTIONS, "--threshold", str(found["threshold"]), "--out", str(out), "--force"
    )
    assert "60.0 % of the heads are active" in shown.stdout
    assert f"layer {tiny.DEPTH - 1:>2}" in shown.stdout
    assert f"--method yopo:heads={out}" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep", "0.5", "--threshold", "1"), "leave one out"),
        (("--tasks", "none"), "no task 'none'"),
        (("--tasks", ","), "no task: choose from"),
        (("--tasks", "easy-vqa"), "leave the task out"),
        (("--split", "test"), "choose train or validation"),
        (("--out", "nowhere/heads.safetensors"), "create it first"),
        (("--keep", "0.1", "--tasks", "color", "--limit", "1"), "must be between 0.40"),
    ],
)
def test_bad_input(checkpoint, arguments, message, tmp_path):
    result = calibrate("--model", checkpoint, "--out", str(tmp_path / "heads.safetensors"), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""


def test_the_error_is_one_line():
    assert "leave one out" in error_line(calibrate("--out", "heads", "--keep", "0.5", "--threshold", "1"))
