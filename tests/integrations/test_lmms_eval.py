"""lmms-eval's own evaluator with the model of this package, offline."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

pytest.importorskip("lmms_eval")

import vistrim
from tests.integrations.lmms_tasks import answers, run, write_tasks
from tests.processors.zoo import CHECKPOINTS
from vistrim.integrations.lmms.costs import Costs, means_by_task
from vistrim.integrations.lmms.model import RequestError, Vistrim
from vistrim.integrations.lmms.requests import user_message
from vistrim.integrations.lmms.settings import read_settings
from vistrim.reference.suites import questions

pytestmark = pytest.mark.slow

METHOD = "fastervlm:keep=0.5+pvtp:drop_per_cut=0.2"
ARGUMENTS = f'pretrained=reference,method="{METHOD}"'
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def locks_of_other_tests():
    """lmms-eval patches the classes of filelock so that a process can take its own locks twice."""
    from filelock import FileLock

    before = type(FileLock).__call__
    yield
    type(FileLock).__call__ = before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder, questions("reference", "short", limit=6)[:30])
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return run(folder, "vistrim_answers", ARGUMENTS, batch_size=8)


def test_scores_and_costs_are_those_of_vistrim_eval(folder, found):
    model, processor = vistrim.load("reference")
    own = vistrim.evaluate(
        model, processor, [METHOD], folder / "questions.jsonl", out=folder / "eval", batch_size=8, max_new_tokens=8
    )
    rows = [json.loads(line) for line in (folder / "eval" / "samples.jsonl").read_text().splitlines()]
    given = [row["answer"] for row in rows if row.get("method", "untouched") != "untouched" and "answer" in row]
    assert answers(found, "vistrim_answers") == given
    figures, means = own.rows[1].groups["Answers"], found["throughput"]
    assert found["results"]["vistrim_answers"]["score,none"] == pytest.approx(figures.accuracy)
    assert means["avg_visual_tokens"] == 144
    assert means["avg_visual_tokens_per_layer"] == pytest.approx(figures.average_tokens)
    assert means["avg_prefill_flops_share"] == pytest.approx(1 / figures.flops_ratio)
    assert means["avg_kv_share"] == pytest.approx(figures.kv_mean)
    assert means["total_gen_tokens"] == pytest.approx(figures.new_tokens * len(given))
    assert found["samples"]["vistrim_answers"][0]["token_counts"][0]["visual_tokens"] == 144


def test_two_processes_give_the_same_scores(folder, found, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = ["-m", "tests.integrations.lmms_tasks", str(folder), "vistrim_answers", ARGUMENTS, str(tmp_path / "out")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(launch + script, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    both = json.loads((tmp_path / "out").read_text())
    assert both["answers"] == answers(found, "vistrim_answers")
    assert both["results"]["vistrim_answers"]["score,none"] == found["results"]["vistrim_answers"]["score,none"]
    for figure in ("total_gen_tokens", "avg_visual_tokens_per_layer", "avg_prefill_flops_share", "avg_kv_share"):
        assert both["throughput"][figure] == pytest.approx(found["throughput"][figure]), figure


def test_cached_answers_belong_to_one_method(folder, tmp_path):
    task, options = "vistrim_answers", {"batch_size": 8, "limit": 8, "use_cache": str(tmp_path)}
    first = run(folder, task, "pretrained=reference,method=untouched", **options)
    other = run(folder, task, "pretrained=reference,method=blind", **options)
    again = run(folder, task, "pretrained=reference,method=untouched", **options)
    assert answers(first, task) == answers(again, task) != answers(other, task)
    assert "throughput" not in again
    assert other["throughput"]["avg_visual_tokens_per_layer"] == 0


def test_given_answers_are_scored_in_simple_tasks(folder):
    results = run(folder, "vistrim_choices", ARGUMENTS, limit=6, force_simple=True)
    samples = results["samples"]["vistrim_choices"]
    assert [len(sample["filtered_resps"]) for sample in samples] == [3] * 6
    assert all(loss > 0 for sample in samples for loss, _ in sample["filtered_resps"])
    # A greedy answer is the likeliest of all, too.
    greedy = [sample for sample in samples if any(best for _, best in sample["filtered_resps"])]
    assert greedy
    for sample in greedy:
        assert min(sample["filtered_resps"])[1]


def test_each_of_several_tasks_has_its_means():
    costs = [
        ("a", Costs(visual_tokens=4, visual_tokens_per_layer=2.0, prefill_flops=1, prefill_flops_full=3, kv_share=0.5)),
        ("b", Costs(visual_tokens=8, visual_tokens_per_layer=8.0, prefill_flops=1, prefill_flops_full=1)),
    ]
    found = means_by_task(costs)
    assert found["visual_tokens_per_layer"] == 5
    assert (found["visual_tokens[a]"], found["visual_tokens[b]"]) == (4, 8)
    assert found["prefill_flops_share"] == 0.5
    assert found["kv_share"] == found["kv_share[a]"] == 0.5
    assert "kv_share[b]" not in found
    assert "visual_tokens[a]" not in means_by_task(costs[:1])


def test_a_budget_holds_for_each_prompt_of_a_batch(tmp_path):
    tiles = CHECKPOINTS["llava_next"].save(tmp_path / "tiles")
    model = Vistrim(pretrained=str(tiles), method="fastv:layer=1", budget="tokens=0.6", device="cpu")
    sizes = ((24, 24), (12, 24), (24, 24), (48, 12))
    asked = [user_message([Image.new("RGB", size, "gray")], "what ?") for size in sizes] + [
        user_message(None, "what ?")
    ]
    requests = [SimpleNamespace(task_name="sizes", metadata={})] * len(asked)

    def costs(conversations):
        found = model._answer(requests[: len(conversations)], conversations, read_settings({"max_new_tokens": 2}))
        return [each.token_counts for each in found]

    together = costs(asked)
    assert together == [cost for one in asked for cost in costs([one])]
    assert len({cost.visual_tokens for cost in together}) == 4
    for cost in together[:-1]:
        assert 0 < cost.visual_tokens_per_layer <= 0.6 * cost.visual_tokens


def test_several_rounds(folder):
    results = run(folder, "vistrim_rounds", ARGUMENTS, limit=2)
    assert results["results"]["vistrim_rounds"]["score,none"] == 2
    with pytest.raises(RequestError, match="leave --force_simple out"):
        run(folder, "vistrim_rounds", ARGUMENTS, limit=2, force_simple=True)


def test_an_error_ends_the_evaluation(tmp_path):
    good, bad = questions("reference", "short", limit=1)[:2]
    write_tasks(tmp_path, [good, replace(bad, prompt="What is <image>?")])
    with pytest.raises(RequestError, match=r"task vistrim_answers, documents 1: the text contains <image>"):
        run(tmp_path, "vistrim_answers", ARGUMENTS)
