"""The study with lmms-eval, with a stand-in for its command."""

import json
from pathlib import Path

import pytest

from studies.llava_1_5_7b import measure, table
from studies.llava_1_5_7b.plan import METHODS, cells
from vistrim import get_method
from vistrim.errors import InputError
from vistrim.integrations.lmms.results import read_results
from vistrim.methods.base.notation import parse_method

OPTIONS = ["--methods", "fastv", "st3", "--budgets", "tokens=64", "none", "--benchmarks", "GQA", "MME"]


def content(task: str, arguments: str, scores: dict[str, float], **costs: float) -> str:
    means = {"avg_visual_tokens_per_layer": 64.0, "avg_prefill_flops_share": 0.25, "avg_kv_share": 0.5}
    values = {"alias": task} | {f"{name},none": value for name, value in scores.items()} | {"x_stderr,none": "N/A"}
    found = {"results": {task: values}, "throughput": means | costs, "n-samples": {task: {"effective": 8}}}
    return json.dumps(found | {"config": {"model": "vistrim", "model_args": arguments}})


@pytest.fixture
def asked(monkeypatch):
    """Arguments of the model in each run. Runs of ST3 on MME fail."""
    found = []

    def run(command, stdout, **_):
        def option(name: str) -> str:
            return command[command.index(name) + 1]

        arguments, task = option("--model_args"), option("--tasks")
        found.append((arguments, task))
        if "st3" in arguments and task == "mme":
            stdout.write("out of memory")
            return
        score = 0.8 if "untouched" in arguments else 0.6
        scores = (
            {"exact_match": score}
            if task == "gqa"
            else dict.fromkeys(("mme_perception_score", "mme_cognition_score"), 1000 * score)
        )
        place = Path(option("--output_path")) / "model" / "deep"
        place.mkdir(parents=True)
        (place / "1_results.json").write_text(content(task, arguments, scores))

    monkeypatch.setattr(measure.subprocess, "run", run)
    return found


def test_only_missing_cells_are_measured(asked, tmp_path, capsys):
    options = ["--out", str(tmp_path), *OPTIONS]
    assert measure.main(options) == 1
    assert len(asked) == 2 * (1 + 2 * 2)
    assert asked[0] == ('pretrained="llava-hf/llava-1.5-7b-hf",method="untouched"', "gqa")
    assert asked[2] == ('pretrained="llava-hf/llava-1.5-7b-hf",method="fastv",budget="tokens=64"', "gqa")
    del asked[:]
    assert measure.main(options) == 1
    assert [task for _, task in asked] == ["mme", "mme"]
    assert "2 cells failed" in capsys.readouterr().out
    table.main(options)
    first, second = (tmp_path / "table.md").read_text().split("\n\n### ")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in first.splitlines()[4:]]
    assert rows == [
        ["untouched", "80.0", "1600.0", "100.0", "64.0", "25.0", "50.0"],
        ["fastv", "60.0", "1200.0", "75.0", "64.0", "25.0", "50.0"],
        ["st3", "60.0", "–", "–", "64.0", "25.0", "50.0"],
    ]
    assert second.startswith("own settings")


def test_every_method_of_the_plan_takes_a_budget():
    assert all(parse_method(method).budget_parameter for method in METHODS)
    assert not get_method("blind").budget_parameter
    with pytest.raises(ValueError, match="no benchmark SEED"):
        cells(["st3"], ["tokens=64"], ["SEED"])


def test_results_of_several_tasks_have_their_own_costs(tmp_path):
    found = json.loads(content("a", "method=st3", {"score": 0.5, "score_stderr": 0.1}, **{"avg_kv_share[a]": 0.75}))
    found["results"]["b"] = {"alias": "b", "acc,none": 1}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    first, second = read_results(path)
    assert (first.task, first.scores, first.costs, first.items) == ("a", {"score": 0.5}, {"kv_share": 0.75}, 8)
    assert (second.scores, second.costs) == ({"acc": 1.0}, {})
    path.write_text(json.dumps(found | {"config": {"model": "llava_hf"}}))
    with pytest.raises(InputError, match="run it with --model vistrim"):
        read_results(path)
