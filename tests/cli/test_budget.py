"""``--budget`` of the commands."""

import json

import pytest

from tests.cli.invoke import error_line, vistrim

RUN = ("-p", "what is this", "--max-new-tokens", "6")
EVAL = ("--tasks", "color", "--limit", "2", "--max-new-tokens", "4", "--level", "several")


def test_run_reaches_the_budget(checkpoint, image):
    arguments = ("--method", "fastv:layer=1", "--budget", "tokens=0.6", "--json")
    result = vistrim("run", image, *RUN, "--model", checkpoint, *arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)["report"]
    (counts,) = zip(*report["visual_tokens_per_layer"], strict=True)
    share = sum(counts) / len(counts) / report["visual_tokens"][0]
    assert 0.6 - 1 / 16 < share <= 0.6


@pytest.mark.usefixtures("undrawn")
def test_eval_names_the_budget(checkpoint, tmp_path):
    arguments = ("--method", "uniform", "--method", "pyramiddrop", "--budget", "tokens=0.5", "--out", str(tmp_path))
    result = vistrim("eval", "--model", checkpoint, *EVAL, *arguments)
    assert result.exit_code == 0, result.stderr
    _, *rows = json.loads((tmp_path / "results.json").read_text())["methods"]
    assert [row["label"] for row in rows] == ["uniform at tokens=0.5", "pyramiddrop at tokens=0.5"]
    assert all(row["groups"]["Short answers"]["average_tokens"] <= 8 for row in rows)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ("time=3", "'time=3' is no budget: write tokens=0.33"),
        ("tokens=0.001", "fastv cannot reach tokens=0.001: it reaches from"),
    ],
)
def test_bad_budgets(checkpoint, image, budget, says):
    result = vistrim("run", image, *RUN, "--model", checkpoint, "--method", "fastv", "--budget", budget)
    assert result.exit_code == 2
    assert says in error_line(result)
