"""A job on a real Ray cluster of this machine: the same answers as in process, and no row is lost with a process."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("ray")

from tests.cli.checkpoint import save
from tests.cli.conftest import save_image
from tests.cli.invoke import vistrim
from vistrim import evaluate, load
from vistrim._utils.labels import UNTOUCHED
from vistrim.batching.answering import in_process
from vistrim.batching.evaluating import evaluate_with
from vistrim.batching.job import run_job
from vistrim.batching.predictor import Predictor, outcome
from vistrim.batching.prompts import read_prompts
from vistrim.errors import LoadError
from vistrim.integrations.ray import DIED, answer_on, cluster, identity_on

pytestmark = pytest.mark.slow

METHOD, NEW_TOKENS = "uniform:keep=4", 4
KILLED, POISON = "what is w21", "what is w24"


@dataclass
class Fragile(Predictor):
    """Its process is killed by one row once, and dies of another each time."""

    killed: str = ""

    def __call__(self, batch):
        if KILLED in batch["prompt"] and not Path(self.killed).exists():
            Path(self.killed).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if POISON in batch["prompt"]:
            os._exit(1)
        return super().__call__(batch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save(tmp_path_factory.mktemp("model") / "tiny-llava"))


@pytest.fixture(scope="module")
def pool():
    # A running cluster saves its start, for which Ray gives up after seconds on a busy machine.
    with cluster(os.environ.get("RAY_TEST_ADDRESS", "local"), 1) as found:
        yield found


@pytest.fixture
def path(tmp_path):
    save_image(tmp_path / "a.png")
    rows = [{"id": f"r{n}", "image": "a.png", "prompt": f"what is w{n + 20}", "answer": "w9"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path / "rows.jsonl"


def by_id(batches):
    return {row["id"]: outcome(row) for batch in batches for row in batch}


def test_answers_are_those_in_process_and_a_dead_process_loses_no_row(pool, checkpoint, path):
    items = list(read_prompts(path).questions.values())
    predictor = Predictor(checkpoint, METHOD, max_new_tokens=NEW_TOKENS)
    expected = by_id(in_process(2)(predictor, items))
    assert identity_on(pool, predictor) == predictor.identity()
    fragile = Fragile(checkpoint, METHOD, max_new_tokens=NEW_TOKENS, killed=str(path.parent / "killed"))
    found = by_id(answer_on(pool, 2)(fragile, items))
    assert (path.parent / "killed").exists()
    poison = items[4].id
    assert found == expected | {poison: DIED}


def test_evaluations_are_those_in_process(pool, checkpoint, path):
    asked = list(read_prompts(path).questions.values())
    sides = {UNTOUCHED: UNTOUCHED, "few": METHOD}
    predictors = {label: Predictor(checkpoint, side, max_new_tokens=NEW_TOKENS) for label, side in sides.items()}
    found = evaluate_with(
        predictors,
        asked,
        identify=lambda predictor: identity_on(pool, predictor),
        answerer=answer_on(pool, 2),
        out=path.parent / "out",
        batch_size=2,
        seed=0,
    )
    model, processor = load(checkpoint)
    local = evaluate(model, processor, {"few": METHOD}, asked, batch_size=2, max_new_tokens=NEW_TOKENS, progress=False)
    assert found.to_dict()["methods"] == local.to_dict()["methods"]
    assert found.settings == local.settings


def test_a_job_begun_here_is_finished_on_the_cluster(pool, checkpoint, path):
    predictor = Predictor(checkpoint, METHOD, max_new_tokens=NEW_TOKENS)
    prompts, out = read_prompts(path), path.parent / "out"

    def first(predictor, items):
        yield next(in_process(2)(predictor, items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(prompts, predictor, out, identity=predictor.identity(), answerer=first, source={})
    identity = identity_on(pool, predictor)
    found = run_job(prompts, predictor, out, identity=identity, answerer=answer_on(pool, 2), source={})
    assert found.manifest["last_run"]["new"] == 4
    assert [row["id"] for row in found.answers] == [f"r{n}" for n in range(6)]


def test_errors_of_the_model_are_those_in_process(pool, tmp_path):
    with pytest.raises(LoadError, match="has no config"):
        identity_on(pool, Predictor(str(tmp_path)))


def test_a_cluster_that_does_not_exist_is_named(path):
    result = vistrim("batch", str(path), "--out", str(path.parent / "out"), "--ray", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "there is no such cluster" in result.stderr
