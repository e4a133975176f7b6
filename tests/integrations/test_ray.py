"""Jobs on a real Ray cluster of this machine: the same answers as in process, and no row is lost with a process.

Most of the time is the start of processes. Only one test has a model, whose imports take seconds in each of them.
"""

import json
import os
from contextlib import contextmanager

import pytest

pytest.importorskip("ray")

from tests.cli.checkpoint import save
from tests.cli.conftest import save_image
from tests.cli.invoke import error_line, vistrim
from tests.integrations.ray_predictors import MISSING, Fragile, Repeating
from vistrim._utils.labels import UNTOUCHED
from vistrim.batching.answering import in_process
from vistrim.batching.evaluating import evaluate_with
from vistrim.batching.job import run_job
from vistrim.batching.predictor import Predictor, outcome
from vistrim.batching.prompts import read_prompts
from vistrim.errors import LoadError
from vistrim.integrations import ray
from vistrim.integrations.ray import DIED, answer_on, cluster, identity_on

pytestmark = pytest.mark.slow

METHOD, NEW_TOKENS = "uniform:keep=4", 4
IMAGE, VIDEO = {"image": "a.png"}, {"video": ["a.png", "b.png"]}


# First, because Ray refuses every address while a cluster is connected.
def test_a_cluster_that_does_not_exist_is_named(write):
    path = write([IMAGE])
    result = vistrim("batch", str(path), "--out", str(path.parent / "out"), "--ray", "nowhere")
    assert "--ray nowhere: there is no such cluster" in error_line(result)


@pytest.fixture(scope="module")
def pool():
    # A running cluster saves its start, for which Ray gives up after seconds on a busy machine.
    with cluster(os.environ.get("RAY_TEST_ADDRESS", "local"), 1) as found:
        yield found


@pytest.fixture
def on_cluster(pool, monkeypatch):
    """Options with which a command runs on the cluster of all tests."""

    @contextmanager
    def connected(address, actors):
        assert (address, actors) == ("local", 1)
        yield pool

    monkeypatch.setattr(ray, "cluster", connected)
    return ("--ray", "local", "--actors", "1", "--batch-size", "2")


@pytest.fixture
def write(tmp_path):
    for name in ("a.png", "b.png"):
        save_image(tmp_path / name)

    def written(shown):
        rows = [
            {"id": f"r{n}", "prompt": f"what is w{n + 20}", "answer": "w9", **images} for n, images in enumerate(shown)
        ]
        (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return tmp_path / "rows.jsonl"

    return written


def test_a_batch_begun_here_is_finished_on_the_cluster(on_cluster, write, tmp_path):
    checkpoint, path, out = str(save(tmp_path / "tiny-llava")), write([IMAGE] * 6), tmp_path / "out"
    predictor, prompts = Predictor(checkpoint, METHOD, max_new_tokens=NEW_TOKENS), read_prompts(path)
    identity = predictor.identity()

    def first(predictor, items):
        yield next(in_process(2)(predictor, items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(prompts, predictor, out, identity=identity, answerer=first, source={})
    options = ("--model", checkpoint, "--method", METHOD, "--max-new-tokens", str(NEW_TOKENS), "--out", str(out))
    result = vistrim("batch", str(path), *options, *on_cluster, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["last_run"]["new"] == 4

    here = run_job(prompts, predictor, tmp_path / "here", identity=identity, answerer=in_process(2), source={})
    _, *found = map(json.loads, (out / "answers.jsonl").read_text().splitlines())
    assert sorted(row["id"] for row in found) == [row["id"] for row in here.answers]
    alike = [{row["id"]: row | {"seconds": None} for row in rows} for rows in (found, here.answers)]
    assert alike[0] == alike[1]


def test_evaluations_are_those_in_process(on_cluster, write, tmp_path, monkeypatch):
    path, out = write([IMAGE, VIDEO, IMAGE, VIDEO, VIDEO]), tmp_path / "out"
    monkeypatch.setattr("vistrim.batching.predictor.Predictor", Repeating)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **options: path.write_bytes(b""))
    options = ("--model", "any", "--method", METHOD, "--data", str(path), "--out", str(out))
    result = vistrim("eval", *options, *on_cluster, "--json")
    assert result.exit_code == 0, result.stderr
    here = evaluate_with(
        {UNTOUCHED: Repeating("any"), METHOD: Repeating("any", METHOD)},
        list(read_prompts(path).questions.values()),
        identify=Repeating.identity,
        answerer=in_process(2),
        out=tmp_path / "here",
        batch_size=2,
        seed=0,
    )
    assert json.loads(result.stdout)["methods"] == json.loads(json.dumps(here.to_dict()["methods"]))
    samples = [sorted((folder / "samples.jsonl").read_text().splitlines()) for folder in (out, tmp_path / "here")]
    assert samples[0] == samples[1]


def test_a_dead_process_loses_no_row(pool, write, tmp_path):
    items = list(read_prompts(write([IMAGE, IMAGE, IMAGE, VIDEO, IMAGE, IMAGE])).questions.values())
    expected = {row["id"]: outcome(row) for batch in in_process(2)(Repeating("any"), items) for row in batch}
    fragile = Fragile("any", killed=str(tmp_path / "killed"))
    found = {row["id"]: outcome(row) for batch in answer_on(pool, 2, attempts=2)(fragile, items) for row in batch}
    assert (tmp_path / "killed").exists()
    assert found == expected | {items[4].id: DIED}


def test_errors_of_the_model_are_those_in_process(pool):
    with pytest.raises(LoadError, match="has no config"):
        identity_on(pool, Repeating(MISSING))
