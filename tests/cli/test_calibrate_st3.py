"""``vistrim calibrate st3``: a schedule is searched, printed, used by name, and never overwritten unasked."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.invoke import error_line, vistrim
from vistrim.calibration.st3 import search as searching

QUICK = ("--tasks", "color", "--prompts", "2", "--max-new-tokens", "2")


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(searching, "WIDTHS", (2, 1, 1, 1))
    monkeypatch.setattr(searching, "NEW", (0, 0, 0, 0))


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_a_schedule_is_searched_shipped_and_used(checkpoint, tmp_path, image):
    model = tmp_path / "tiny-llava"
    shutil.copytree(checkpoint, model)
    (model / "vistrim").mkdir()
    run = ("run", image, "--prompt", "what is this", "--model", str(model), "--max-new-tokens", "2", "--json")
    missing = vistrim(*run, "--method", "st3:schedule=auto")
    assert missing.exit_code != 0
    assert "there is no schedule of st3 for 'tiny-llava'" in error_line(missing)
    out = model / "vistrim" / "st3-flops-0.7.json"
    command = ("calibrate", "st3", "--model", str(model), "--budget", "flops=0.7", "--out", str(out), *QUICK)
    result = vistrim(*command)
    assert result.exit_code == 0
    assert f"use it with --method st3:schedule={out}" in result.stdout
    assert "flops=0.7: reaches flops 0.6" in result.stdout
    for said in (
        "this schedule: answers kept ",
        "ST³'s defaults at this budget: answers kept ",
        "probability lost: by",
    ):
        assert said in result.stdout
    again = vistrim(*command, "--json")
    assert "already has the result" in again.stderr
    assert json.loads(again.stdout) == json.loads(out.read_text())
    assert "holds another schedule" in error_line(vistrim(*command[:-1], "3"))
    # Without a budget, the schedule for half of the FLOPs is used, also without a method; here there is none.
    assert "none for flops=0.5" in error_line(vistrim(*run, "--method", "st3:schedule=auto"))
    assert json.loads(vistrim(*run).stdout)["report"]["method"].startswith("st3:start_layer=")
    half = json.loads(out.read_text()) | {"budget": "flops=0.5"}
    out.with_name("st3-flops-0.5.json").write_text(json.dumps(half))
    assert json.loads(vistrim(*run).stdout)["report"]["method"].startswith("st3:schedule=auto (fitted to tiny-llava")
    out.with_name("st3-flops-0.5.json").unlink()
    used = vistrim(*run, "--method", "st3:schedule=auto", "--budget", "tokens=0.7")
    assert used.exit_code == 0
    report = json.loads(used.stdout)["report"]
    assert report["method"].startswith("st3:schedule=auto,mean_keep=0.")
    assert "fitted to tiny-llava at flops=0.7; " in report["method"]
    kept = [tokens for (tokens,) in report["visual_tokens_per_layer"]]
    assert sum(kept) / (5 * 16) == pytest.approx(0.7, abs=0.05)


@pytest.mark.usefixtures("no_model")
def test_bad_input_is_refused_before_the_model_is_loaded(tmp_path):
    out = ("calibrate", "st3", "--out", str(Path(tmp_path) / "st3.json"))
    for arguments, message in (
        (("--budget", "half"), "'half' is no budget"),
        (("--budget", "flops=0.5", "--form", "best"), "--form best: choose free or st3"),
        (("--budget", "flops=0.5", "--split", "test"), "test questions are reserved"),
    ):
        result = vistrim(*out, *arguments)
        assert result.exit_code == 2
        assert message in error_line(result)
