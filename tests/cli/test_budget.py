"""``--budget`` of the commands."""

import json

import pytest

from tests.cli.invoke import error_line, vistrim

pytestmark = pytest.mark.usefixtures("few_objects")

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
def test_bench_reaches_the_budget(checkpoint, tmp_path):
    methods = ("--method", "keep-everything", "--method", "fastervlm", "--method", "vispruner:important=0.5")
    arguments = (*methods, "--budget", "kv=0.6", "--text-tokens", "12", "--new-tokens", "3", "--repeat", "1")
    result = vistrim("bench", "--model", checkpoint, *arguments, "--out", str(tmp_path), "--json")
    assert result.exit_code == 0, result.stderr
    rows = {row["label"]: row["cost"] for row in json.loads(result.stdout)["methods"]}
    full, kept, *others = (row["kv_bytes"] for row in rows.values())
    assert [*rows][2:] == ["fastervlm at kv=0.6", "vispruner:important=0.5 at kv=0.6"]
    assert kept == full
    for held in others:
        # A token of 16, in a prompt of 28.
        assert 0.6 - 1 / 28 < sum(n / m for n, m in zip(held, full, strict=True)) / 3 <= 0.6


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
        ("flops=1.5", "a share must be above 0 and at most 1.0"),
        ("time=3", "'time=3' is no budget: write tokens=0.33"),
        ("tokens=0.001", "fastv cannot reach tokens=0.001: it reaches from"),
    ],
)
def test_bad_budgets(checkpoint, image, budget, says):
    result = vistrim("run", image, *RUN, "--model", checkpoint, "--method", "fastv", "--budget", budget)
    assert result.exit_code == 2
    assert says in error_line(result)
