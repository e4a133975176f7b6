"""``vistrim analyze``: figures, tables and plots of a model's attention."""

import json

import pytest

from tests.cli.invoke import error_line, vistrim


@pytest.mark.slow
def test_the_command_writes_figures_tables_and_plots(checkpoint, own, tmp_path):
    out = tmp_path / "out"
    result = vistrim(
        "analyze", "--model", checkpoint, "--data", str(own), "--max-new-tokens", "3", "--out", str(out), "--json"
    )
    assert json.loads(result.stdout) == json.loads((out / "analysis.json").read_text())
    assert {path.name for path in out.glob("*.png")} == {"attention.png", "layers.png", "rankings.png", "sinks.png"}
    assert "### Answers kept: all" in (out / "analysis.md").read_text()


def test_bad_input(no_model, tmp_path):
    for arguments, message in (
        (("--layers", "x"), "separate layer numbers by slashes"),
        (("--tasks", "none"), "no task 'none'"),
        (("--split", "test"), "choose train or validation"),
    ):
        assert message in error_line(vistrim("analyze", "--out", str(tmp_path / "out"), *arguments))
