"""The measurement of `vistrim batch`: both sides answer the same prompts."""

import json
import sys

from studies.batch import measure


def test_both_sides_answer_the_same_prompts(monkeypatch, tmp_path, capsys):
    out = tmp_path / "results" / "small.json"
    command = ["measure", "--model", "reference-small", "--method", "uniform:keep=0.5", "--questions", "5"]
    command += ["--tasks", "color,lookup", "--batch-size", "3", "--max-new-tokens", "3", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    measure.main()
    found = json.loads(out.read_text())
    untouched, trimmed = (found["figures"][method] for method in ("untouched", "uniform:keep=0.5"))
    assert trimmed["average_tokens"] == untouched["average_tokens"] / 2
    assert untouched["of_untouched"] == 1
    assert [len(times) for times in found["seconds"].values()] == [2, 2]
    assert all(0 <= side["score"] <= 1 and side["prompts_per_second"] > 0 for side in (untouched, trimmed))
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out


def test_tasks_are_asked_in_turn():
    tasks = [item.task.name for item in measure.draw("reference-small", ["color", "lookup", "count"], 5)]
    assert tasks == ["color", "lookup", "count", "color", "lookup"]
