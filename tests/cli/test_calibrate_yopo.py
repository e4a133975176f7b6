"""``vistrim calibrate yopo``, hooked into an application of its own."""

import json
from typing import Any

import pytest
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests import tiny
from tests.cli.invoke import error_line, vistrim
from vistrim.cli.calibrate_yopo import calibrate_yopo
from vistrim.cli.errors import OneLineErrors

app = typer.Typer(cls=OneLineErrors, add_completion=False, pretty_exceptions_enable=False)
app.command("yopo")(calibrate_yopo)
app.callback()(lambda: None)


def calibrate(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["yopo", *arguments], catch_exceptions=False, prog_name="vistrim calibrate")


def test_the_file_is_what_the_method_takes(checkpoint, image, tmp_path):
    out = tmp_path / "heads.safetensors"
    result = calibrate("--model", checkpoint, "--limit", "4", "--keep", "0.6", "--out", str(out), "--json")
    found = json.loads(result.stdout)
    heads = load_file(out)["heads"]
    assert found["active"] == heads.sum(1).tolist()
    assert found["share"] == pytest.approx(0.6)
    assert found["prompts"] == 4
    run = vistrim("run", image, "-p", "what", "--model", checkpoint, "--method", f"yopo:heads={out}", "--json")
    assert run.exit_code == 0
    shown = calibrate("--model", checkpoint, "--limit", "4", "--threshold", str(found["threshold"]), "--out", str(out))
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
        (("--level", "none"), "no level"),
        (("--out", "nowhere/heads.safetensors"), "a folder that exists"),
        (("--keep", "0.1", "--limit", "1"), "must be between 0.40"),
    ],
)
def test_bad_input(checkpoint, arguments, message):
    result = calibrate("--model", checkpoint, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""


def test_the_error_is_one_line():
    assert "leave one out" in error_line(calibrate("--keep", "0.5", "--threshold", "1"))
