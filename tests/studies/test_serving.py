"""The measurement of the server: both sides at every concurrency, and resumed runs."""

import json
import sys

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from studies.serving import measure


@pytest.mark.slow
def test_a_run_is_resumed_and_has_both_sides_at_every_concurrency(monkeypatch, tmp_path, capsys):
    out = tmp_path / "results" / "small.json"
    command = ["measure", "--model", "reference-small", "--concurrency", "1", "2", "--per-client", "1"]
    command += ["--new-tokens", "3", "--threads", "1", "--out", str(out)]

    def run(*options):
        monkeypatch.setattr(sys, "argv", [*command, *options])
        measure.main()
        return json.loads(out.read_text())["rows"]

    first = run("--rounds", "1")
    sides = [(row["concurrency"], row["method"]) for row in first]
    assert sides == [(n, method) for n in (1, 2) for method in ("untouched", "st3:preset=compact")]
    assert [len(row["first_tokens"]) for row in first] == [1, 1, 2, 2]
    assert all(0 < time <= row["seconds"] for row in first for time in row["first_tokens"])
    assert first[0]["average_tokens"] > first[1]["average_tokens"]
    both = run("--rounds", "2")
    assert both[:4] == first
    # In the next round, the other side begins.
    assert [row["method"] for row in both[4:6]] == ["st3:preset=compact", "untouched"]
    capsys.readouterr()
    assert run("--report") == both
    table = capsys.readouterr().out
    assert len(table.strip().splitlines()) == 2 + 4
    assert out.with_suffix(".md").read_text() in table
    with pytest.raises(SystemExit):
        run("--new-tokens", "4")
    assert "other settings" in capsys.readouterr().err
