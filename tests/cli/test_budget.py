"""``--budget`` of the commands."""

import json
import pickle

import pytest

from tests.cli.invoke import error_line, vistrim
from vistrim import at_budget, load
from vistrim.batching.predictor import Predictor, columns
from vistrim.evaluation import read_questions
from vistrim.evaluation.item_prompts import format_items

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
    assert result.stderr == f"note: fastv:layer=1 at tokens=0.6: {report['method']} reaches tokens={share:.4g}\n"


@pytest.mark.usefixtures("undrawn")
def test_bench_reaches_the_budget(checkpoint, tmp_path):
    methods = ("--method", "keep-everything", "--method", "fastervlm", "--method", "vispruner:important=0.5")
    arguments = (*methods, "--budget", "kv=0.6", "--text-tokens", "12", "--new-tokens", "3", "--repeat", "1")
    result = vistrim("bench", "--model", checkpoint, *arguments, "--out", str(tmp_path), "--json")
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)
    rows = {row["label"]: row["cost"] for row in results["methods"]}
    full, kept, *others = (row["kv_bytes"] for row in rows.values())
    assert [*rows][2:] == ["fastervlm at kv=0.6", "vispruner:important=0.5 at kv=0.6"]
    assert kept == full
    assert [*results["budgets"]] == [*rows][2:]
    for held, (label, found) in zip(others, results["budgets"].items(), strict=True):
        share = sum(n / m for n, m in zip(held, full, strict=True)) / 3
        # A token of 16, in a prompt of 28.
        assert 0.6 - 1 / 28 < share <= 0.6
        assert (found["kind"], found["asked"], found["reached"]) == ("kv", 0.6, pytest.approx(share))
        assert f"* {label} = {rows[label]['notation']} reaches kv={share:.4g}" in (tmp_path / "results.md").read_text()
    result = vistrim("bench", "--model", checkpoint, "--method", "fastv", "--budget", "tokens=0.001")
    assert result.exit_code == 2
    assert "fastv cannot reach tokens=0.001: it reaches from 0.4 to 1" in error_line(result)


@pytest.mark.usefixtures("undrawn")
def test_eval_names_the_budget(checkpoint, tmp_path):
    arguments = ("--method", "uniform", "--method", "pyramiddrop", "--budget", "tokens=0.5", "--out", str(tmp_path))
    result = vistrim("eval", "--model", checkpoint, *EVAL, *arguments)
    assert result.exit_code == 0, result.stderr
    _, *rows = json.loads((tmp_path / "results.json").read_text())["methods"]
    assert [row["label"] for row in rows] == ["uniform at tokens=0.5", "pyramiddrop at tokens=0.5"]
    assert all(row["groups"]["Short answers"]["average_tokens"] <= 8 for row in rows)


def test_a_budget_of_a_batch_refers_to_its_prompts(checkpoint, own, tmp_path):
    model, processor = load(checkpoint)
    asked = read_questions(own, answered=False)

    def resolved(*arguments):
        common = ("--method", "uniform", "--max-new-tokens", "2", "--out", str(tmp_path / "out"), *arguments)
        result = vistrim("batch", str(own), "--model", checkpoint, *common)
        assert result.exit_code == 0, result.stderr
        return json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["resolved"], result.stdout

    inputs = format_items(processor, asked)
    notation, shown = resolved("--budget", "flops=0.7")
    assert notation == str(at_budget("uniform", model, flops=0.7, inputs=inputs, new_tokens=2))
    # Among the 64 text tokens of the default prompt, the image alone is too little.
    with pytest.raises(ValueError, match=r"it reaches from 0\.75"):
        at_budget("uniform", model, flops=0.7, new_tokens=2)
    assert f"uniform at flops=0.7 = {notation}" in shown

    # Rows that are added do not change it, whatever their length.
    own.write_text(own.read_text() + json.dumps({"image": "a.png", "prompt": "what is " * 30}) + "\n")
    assert resolved("--budget", "flops=0.7")[0] == notation

    # A row that cannot be asked is an error of that row alone. On a cluster, the prompts travel with the settings.
    table = columns(asked)
    table["prompt"][1] = "<image>"
    predictor = Predictor(checkpoint, "uniform", "flops=0.7", max_new_tokens=2, budget_prompts=table)
    first = at_budget("uniform", model, flops=0.7, inputs=format_items(processor, asked[:1]), new_tokens=2)
    assert pickle.loads(pickle.dumps(predictor)).identity()["resolved"] == str(first)


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
