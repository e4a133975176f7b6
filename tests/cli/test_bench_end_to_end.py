"""The command ``vistrim bench`` on a tiny checkpoint, from end to end."""

import json

import pytest

from tests.cli.invoke import error_line, vistrim

pytestmark = pytest.mark.usefixtures("few_objects")

METHODS = ("--method", "keep-everything", "--method", "uniform:keep=4", "--method", "st3:interval=2")
SMALL = ("--text-tokens", "12", "--new-tokens", "4", "--repeat", "2", "--batch", "2")


def bench(checkpoint, out, *arguments):
    return vistrim("bench", "--model", checkpoint, "--out", str(out), *SMALL, *METHODS, *arguments)


def test_files_have_the_measurements(checkpoint, tmp_path):
    result = bench(checkpoint, tmp_path)
    assert result.exit_code == 0, result.stderr
    for text in ("Time, medians of 2 rounds", "uniform:keep=4", "results.json"):
        assert text in result.stdout
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {row["label"]: row for row in found["methods"]}
    assert list(rows) == ["untouched", "keep-everything", "uniform:keep=4", "st3:interval=2"]
    assert all(len(row["runs"]) == 2 and len(row["runs"][0]["step_seconds"]) == 3 for row in rows.values())
    full, kept, few = (rows[label]["cost"] for label in ("untouched", "keep-everything", "uniform:keep=4"))
    assert kept["kv_bytes"] == full["kv_bytes"]
    assert kept["prefill_flops"] == full["prefill_flops"]
    assert few["average_tokens"] == 4
    assert max(few["kv_bytes"]) < min(full["kv_bytes"])
    assert rows["uniform:keep=4"]["speedups"]["prefill"]["limit"] > 1
    assert (found["settings"]["batch"], found["settings"]["new_tokens"], found["random_weights"]) == (2, 4, False)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert "| uniform:keep=4 |" in (tmp_path / "results.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_own_questions_as_prompts(checkpoint, tmp_path, own):
    small = ("--new-tokens", "2", "--repeat", "1", "--method", "uniform:keep=4", "--data", str(own))
    common = ("bench", "--out", str(tmp_path / "out"), *small)
    result = vistrim(*common, "--model", checkpoint, "--json")
    assert result.exit_code == 0, result.stderr
    settings = json.loads(result.stdout)["settings"]
    assert (settings["batch"], settings["visual_tokens"]) == (1, 16)
    for arguments, says in (
        (("--model", "llava-1.5-7b"), "needs a trained model"),
        (("--model", checkpoint, "--text-tokens", "9"), "--text-tokens exclude"),
        (("--model", checkpoint, "--batch", "3"), "--batch of at most 2"),
    ):
        result = vistrim(*common, *arguments)
        assert result.exit_code == 2
        assert says in error_line(result)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_second_run_measures_nothing_again_and_more_rounds_only_add(checkpoint, tmp_path, monkeypatch):
    first = bench(checkpoint, tmp_path)
    runs = (tmp_path / "runs.jsonl").read_text()
    with monkeypatch.context() as patched:
        patched.setattr("vistrim.benchmark.rounds.time_generation", lambda *_: pytest.fail("measured again"))
        assert bench(checkpoint, tmp_path).stdout == first.stdout
    assert bench(checkpoint, tmp_path, "--repeat", "3").exit_code == 0
    assert (tmp_path / "runs.jsonl").read_text().startswith(runs)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 1 + 4 + 3


@pytest.mark.usefixtures("undrawn")
def test_other_settings_are_refused_before_a_model_is_made(checkpoint, tmp_path, monkeypatch):
    bench(checkpoint, tmp_path)
    monkeypatch.setattr("vistrim.benchmark.benching.make_subject", lambda _: pytest.fail("made"))
    result = bench(checkpoint, tmp_path, "--new-tokens", "5")
    assert result.exit_code == 1
    assert "new_tokens" in error_line(result)


def test_options_that_the_model_lacks_are_refused(checkpoint, tmp_path):
    result = bench(checkpoint, tmp_path / "out", "--method", "st3:start_layer=99")
    assert result.exit_code == 2
    assert "start_layer" in error_line(result)
    assert not (tmp_path / "out").exists()


def test_unknown_models_are_refused_with_the_shapes(tmp_path):
    result = vistrim("bench", "--model", "llava-9", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "llava-1.5-7b" in error_line(result)
