"""``vistrim calibrate``: schedules are searched, written, used, resumed and never overwritten unasked."""

import json
import math
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import vistrim as library
from tests.cli.invoke import error_line, vistrim
from tests.cli.test_process import COMMAND, ENVIRONMENT, LIMIT
from vistrim.calibration import rate_evaluations
from vistrim.core.sigmoid import sigmoid_rates

NEW_TOKENS = "2"
QUICK = ("--max-new-tokens", NEW_TOKENS, "--objective", "agreement")
TASKS = ("--tasks", "color,description", "--limit", "2")
GSEARCH = ("gsearch", *TASKS, "--group", "2", "--error", "0.4")
PSIGMOID = ("psigmoid", *TASKS, "--budget", "tokens=0.4", "--trials", "3")


def note_batches(patch, found):
    """Note the method of each batch that the model is asked."""
    real = rate_evaluations.answer

    def counted(model, processor, items, method, max_new_tokens):
        found.append(method)
        return real(model, processor, items, method, max_new_tokens)

    patch.setattr(rate_evaluations, "answer", counted)


@pytest.fixture
def asked(monkeypatch):
    """The methods with which the model was asked, a batch each."""
    found = []
    note_batches(monkeypatch, found)
    return found


@dataclass(frozen=True)
class Found:
    """A finished search: its schedule and progress, what it printed, and how often it asked the model."""

    folder: Path
    stdout: str
    batches: int

    def copied(self, to: Path) -> Path:
        """The schedule in a copy of the folder."""
        return Path(shutil.copytree(self.folder, to)) / "schedule.json"


@pytest.fixture(scope="module")
def search(checkpoint, tmp_path_factory):
    """Finds a schedule by a command, once."""

    @cache
    def found(command):
        folder, asked = tmp_path_factory.mktemp("search"), []
        with pytest.MonkeyPatch.context() as patch:
            note_batches(patch, asked)
            result = calibrate(checkpoint, folder / "schedule.json", *command)
        assert result.exit_code == 0
        return Found(folder, result.stdout, len(asked))

    return found


def calibrate(checkpoint, out, *arguments):
    return vistrim("calibrate", *arguments, "--model", checkpoint, "--out", str(out), *QUICK)


def searched(path):
    """Contents of a schedule without place and date."""
    content = json.loads(path.read_text())
    del content["made_with"]["command"], content["made_with"]["environment"]
    return content


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("command", [GSEARCH, PSIGMOID], ids=["gsearch", "psigmoid"])
def test_a_schedule_is_searched_and_can_be_used(checkpoint, tmp_path, command, search):
    found = search(command)
    out = found.folder / "schedule.json"
    assert f"use it with --method {command[0]}:schedule={out}" in found.stdout
    content = json.loads(out.read_text())
    rates, made = content["rates"], content["made_with"]
    assert content["method"] == command[0]
    assert content["model"] == "tiny-llava"
    assert len(rates) == content["layers"] == 5
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    assert made["mean_rate"] == pytest.approx(sum(rates) / 5)
    assert made["untouched"] == 1
    assert made["number_of_questions"] == 4
    assert made["settings"]["tasks"] == "color,description"
    assert made["environment"]["torch"]
    if command is GSEARCH:
        assert made["performance"] >= 0.6
    else:
        assert rates == list(sigmoid_rates(made["kappa"], made["mean_keep"], 5))
        assert made["evaluations"] == 3
    used = vistrim(
        "eval", "--model", checkpoint, *TASKS, "--split", "validation", "--max-new-tokens", NEW_TOKENS, "--json",
        "--out", str(tmp_path / "eval"), "--method", f"{command[0]}:schedule={out}",
    )  # fmt: skip
    assert used.exit_code == 0
    (row,) = json.loads(used.stdout)["methods"][1:]
    figures = row["tasks"].values()
    assert sum(one["agreement"] for one in figures) / 2 == pytest.approx(made["performance"])
    kept = [max(1, math.ceil(16 * rate - 1e-9)) for rate in rates]
    # At or below the budget, with less than a token left.
    assert command is GSEARCH or 0.4 * 16 - 1 < sum(kept) / 5 <= 0.4 * 16
    assert all(one["average_tokens"] == pytest.approx(sum(kept) / 5) for one in figures)


@pytest.mark.slow
@pytest.mark.parametrize("command", [GSEARCH, PSIGMOID], ids=["gsearch", "psigmoid"])
def test_a_search_that_was_stopped_goes_on_and_finds_the_same(
    checkpoint, tmp_path, command, asked, monkeypatch, search
):
    whole, cut = search(command), tmp_path / "cut.json"
    asked.clear()
    counted = rate_evaluations.answer

    def interrupted(*arguments):
        if len(asked) == 5:
            raise KeyboardInterrupt
        return counted(*arguments)

    monkeypatch.setattr(rate_evaluations, "answer", interrupted)
    stopped = calibrate(checkpoint, cut, *command)
    assert stopped.exit_code == 130
    assert "stopped: repeat the command to resume" in stopped.stderr
    assert not cut.exists()
    monkeypatch.setattr(rate_evaluations, "answer", counted)
    assert calibrate(checkpoint, cut, *command).exit_code == 0
    # Two batches each: the evaluation that was cut off is made again.
    assert len(asked) == whole.batches + 1
    assert searched(cut) == searched(whole.folder / "schedule.json")


@pytest.mark.slow
def test_a_kill_loses_at_most_one_evaluation(checkpoint, tmp_path):
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    calibrate(checkpoint, whole, *GSEARCH)
    progress = killed.with_name("killed.json.progress.jsonl")
    command = [*COMMAND, "calibrate", *GSEARCH, "--model", checkpoint, "--out", str(killed), *QUICK]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    while not progress.exists() or progress.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        assert time.monotonic() - began < LIMIT
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not killed.exists()
    before = progress.read_bytes()
    assert calibrate(checkpoint, killed, *GSEARCH).exit_code == 0
    assert searched(killed) == searched(whole)
    assert progress.read_bytes().startswith(before[: before.rfind(b"\n") + 1])


def test_a_finished_command_does_nothing(checkpoint, monkeypatch, search):
    first = search(PSIGMOID)
    # Not in a copy: its place is in what is printed.
    out = first.folder / "schedule.json"
    before = out.read_bytes()
    monkeypatch.setattr(library, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    again = calibrate(checkpoint, out, *PSIGMOID)
    assert again.exit_code == 0
    assert "already has the result of this command" in again.stderr
    assert again.stdout == first.stdout
    assert out.read_bytes() == before


def test_other_settings_do_not_overwrite_a_schedule_unasked(checkpoint, tmp_path, asked, search):
    out = search(PSIGMOID).copied(tmp_path / "copy")
    before = out.read_bytes()
    more = (*PSIGMOID, "--trials", "5")
    refused = calibrate(checkpoint, out, *more)
    assert refused.exit_code == 2
    assert "holds another schedule (trials 3, now 5): give another --out, or --force" in error_line(refused)
    assert out.read_bytes() == before
    asked.clear()
    forced = calibrate(checkpoint, out, *more, "--force", "--json")
    assert forced.exit_code == 0
    # The first three trials are known.
    assert len(asked) == 2 * 2
    assert json.loads(forced.stdout) == json.loads(out.read_text())
    assert json.loads(out.read_text())["made_with"]["evaluations"] == 5


def test_another_file_is_not_overwritten_unasked(checkpoint, tmp_path):
    out = tmp_path / "notes.json"
    out.write_text("mine")
    result = calibrate(checkpoint, out, *PSIGMOID)
    assert result.exit_code == 2
    assert "is no schedule" in error_line(result)
    assert "--force" in error_line(result)
    assert out.read_text() == "mine"


def test_evaluations_of_another_model_are_not_mixed_in(checkpoint, tmp_path, monkeypatch, search):
    out = search(PSIGMOID).copied(tmp_path / "copy")
    monkeypatch.setattr("vistrim.loading.fingerprint", lambda *_: "other")
    out.unlink()
    result = calibrate(checkpoint, out, *PSIGMOID)
    assert result.exit_code == 1
    assert "weights" in error_line(result)
    assert "delete it" in error_line(result)
    # Asked for, everything is done again.
    assert calibrate(checkpoint, out, *PSIGMOID, "--force").exit_code == 0
    assert out.exists()


def test_own_questions_and_all_rows_of_the_prompt(checkpoint, tmp_path, own):
    out = tmp_path / "schedule.json"
    arguments = ("gsearch", "--data", str(own), "--rows", "prompt", "--group", "4", "--error", "0.5")
    assert calibrate(checkpoint, out, *arguments).exit_code == 0
    content = json.loads(out.read_text())
    assert content["rows"] == "prompt"
    assert content["made_with"]["number_of_questions"] == 2
    # An image that changes makes other questions of them.
    changed = Path(shutil.copy(own.parent / "a.png", own.parent / "b.png"))
    changed.write_bytes(changed.read_bytes() + b" ")
    changed.replace(own.parent / "a.png")
    result = calibrate(checkpoint, out, *arguments)
    assert result.exit_code == 2
    assert "questions" in error_line(result)


def test_some_of_ones_own_questions(checkpoint, tmp_path, own):
    picked = set()
    for seed in range(4):
        out = tmp_path / f"{seed}.json"
        common = ("--data", str(own), "--limit", "1", "--seed", str(seed), "--trials", "1", "--budget", "tokens=1.0")
        assert calibrate(checkpoint, out, "psigmoid", *common).exit_code == 0
        made = json.loads(out.read_text())["made_with"]
        assert made["number_of_questions"] == 1
        picked.add(made["settings"]["questions"])
    assert len(picked) == 2


def test_a_budget_of_flops(checkpoint, tmp_path):
    out = tmp_path / "schedule.json"
    asking = ("--tasks", "color", "--limit", "1")
    result = calibrate(checkpoint, out, "psigmoid", *asking, "--budget", "flops=0.6", "--trials", "2")
    assert result.exit_code == 0
    used = vistrim(
        "eval", "--model", checkpoint, *asking, "--split", "validation", "--max-new-tokens", NEW_TOKENS, "--json",
        "--out", str(tmp_path / "eval"), "--method", f"psigmoid:schedule={out}",
    )  # fmt: skip
    figures = json.loads(used.stdout)["methods"][1]["tasks"]["color"]
    # A token more or less in one of five layers is a few percent.
    assert 0.55 < 1 / figures["flops_ratio"] <= 0.6


def test_help():
    listed = vistrim("calibrate")
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in ("gsearch", "psigmoid", "dyvte", "yopo"))
    assert "Example: vistrim calibrate gsearch" in vistrim("calibrate", "gsearch", "--help").stdout
