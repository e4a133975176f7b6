"""``vistrim batch``: every row is answered once, and bad rows are kept apart."""

import json
import math
import pickle
from dataclasses import replace

import pytest

from tests.cli.conftest import save_image
from tests.cli.invoke import error_line, vistrim
from vistrim import load
from vistrim.batching.answering import in_process
from vistrim.batching.job import run_job
from vistrim.batching.predictor import Predictor, outcome
from vistrim.batching.prompts import read_prompts
from vistrim.evaluation import answering
from vistrim.evaluation.entries import read_entries

METHOD = "uniform:keep=4"


@pytest.fixture
def rows(tmp_path):
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "b.png")
    return [{"id": f"r{n}", "image": "ab"[n % 2] + ".png", "prompt": f"what is w{n + 20}"} for n in range(5)]


@pytest.fixture
def write(tmp_path):
    def written(rows):
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return written


def batch(checkpoint, path, *arguments):
    common = ("--model", checkpoint, "--batch-size", "2", "--max-new-tokens", "4")
    method = () if "--method" in arguments else ("--method", METHOD)
    return vistrim("batch", str(path), "--out", str(path.parent / "out"), *common, *method, *arguments)


def lines(path, name):
    found = [json.loads(line) for line in (path.parent / "out" / name).read_text().splitlines()]
    return [line for line in found if "settings" not in line]


@pytest.fixture
def asked(monkeypatch):
    """Prompts of each call of the model."""
    calls, answer = [], answering.answer

    def recorded(model, processor, items, *others):
        calls.append([item.prompt for item in items])
        return answer(model, processor, items, *others)

    monkeypatch.setattr(answering, "answer", recorded)
    return calls


def test_a_job_from_end_to_end(checkpoint, rows, write, asked):
    bad = ["{", rows[0], rows[1] | {"id": 7, "image": "c.png"}]
    path = write([*rows, *bad])
    result = batch(checkpoint, path)
    assert result.exit_code == 1
    assert "3 rows have no answer, first line 6" in result.stderr
    assert [row["line"] for row in lines(path, "errors.jsonl")] == [6, 7, 8]
    assert "line 1 has the id r0" in lines(path, "errors.jsonl")[1]["error"]
    answers = lines(path, "answers.jsonl")
    assert [row["id"] for row in answers] == [row["id"] for row in rows]
    assert [len(prompts) for prompts in asked] == [2, 2, 1]
    model, processor = load(checkpoint)
    (item,) = [q for q in read_prompts(write(rows)).questions.values() if q.name == "r2"]
    (expected,) = answering.answer(model, processor, [item], Predictor(checkpoint, METHOD).load()[2], 4)
    assert outcome(answers[2] | {"error": ""}) == expected
    assert answers[2]["average_tokens"] == 4

    # Corrected and new rows are answered; no other row is.
    asked.clear()
    path = write([*rows, rows[0] | {"id": "new", "answer": "w9"}])
    result = batch(checkpoint, path, "--json")
    assert result.exit_code == 0, result.stderr
    assert asked == [["what is w20"]]
    manifest = json.loads(result.stdout)
    assert manifest == json.loads((path.parent / "out" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["answered"], manifest["last_run"]["new"]) == (6, 6, 1)
    assert manifest["settings"]["resolved"].startswith("uniform:keep=4")
    assert manifest["settings"]["generation"] == {"max_new_tokens": 4}
    assert {"weights", "dtype", "vistrim", "transformers", "seed"} <= manifest["settings"].keys()
    assert lines(path, "errors.jsonl") == []
    assert lines(path, "answers.jsonl")[-1]["score"] in (0, 1)
    (entry,) = read_entries(path.parent / "out")
    assert (entry.items, entry.tokens, entry.score, entry.protocol["tool"]) == (6, 4, None, "vistrim batch")
    assert 0 < entry.flops < 1
    assert 0 < entry.kv < 1

    # Other settings and other contents of a row are refused.
    for arguments, says in ((("--seed", "1"), "seed 0, now 1"), (("--method", "st3"), "method")):
        assert says in error_line(batch(checkpoint, path, *arguments))
    path = write([rows[0] | {"prompt": "this"}])
    assert "another prompt or image with the id r0" in error_line(batch(checkpoint, path))


def test_nothing_is_lost_or_repeated_after_a_stop(checkpoint, rows, write, asked):
    predictor = Predictor(checkpoint, METHOD, max_new_tokens=4)
    path = write(rows)

    def run(answerer):
        prompts = read_prompts(path)
        return run_job(
            prompts, predictor, path.parent / "out", identity=predictor.identity(), answerer=answerer, source={}
        )

    def stopping(predictor, items):
        yield next(in_process(2)(predictor, items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stopping)
    assert len(lines(path, "answers.jsonl")) == 2
    whole = run(in_process(2))
    assert sorted(prompt for prompts in asked for prompt in prompts) == [row["prompt"] for row in rows]
    assert [row["id"] for row in whole.answers] == [row["id"] for row in rows]


def test_a_bad_row_affects_no_other(checkpoint, rows, tmp_path, monkeypatch):
    predictor = Predictor(checkpoint, METHOD, max_new_tokens=4)
    content = (tmp_path / "a.png").read_bytes()
    table = {
        "image": [content, str(tmp_path / "b.png"), [content, content], b"no image", "none.png", None, 3, content],
        "prompt": [*["what is this"] * 7, "<image>"],
        "own": list(range(8)),
    }
    answer = answering.answer

    def without_memory(model, processor, items, *others):
        if len(items) > 1:
            raise MemoryError
        return answer(model, processor, items, *others)

    found = predictor(table)
    errors = found["error"]
    assert errors[:3] == ["", "", ""]
    for error, says in zip(
        errors[3:], ("is not an image", "no image file", "no image:", "is int", "<image>"), strict=True
    ):
        assert says in error
    assert found["own"] == table["own"]
    assert found["average_tokens"][:3] == [4, 4, 8]
    assert math.isnan(found["average_tokens"][3])
    monkeypatch.setattr(answering, "answer", without_memory)
    alone = predictor({name: values[:3] for name, values in table.items()})
    assert (alone["answer"], alone["error"]) == (found["answer"][:3], [""] * 3)


def test_a_predictor_can_be_sent_to_another_process(checkpoint, rows, tmp_path):
    predictor = Predictor(checkpoint, "uniform", "tokens=0.25", max_new_tokens=4)
    table = {"image": [str(tmp_path / "a.png")], "prompt": ["what is this"]}
    expected, identity = predictor(table)["answer"], predictor.identity()
    content = pickle.dumps(predictor)
    assert len(content) < 2000
    copied = pickle.loads(content)
    assert copied(table)["answer"] == expected
    assert copied.identity() == identity
    assert identity["resolved"] != predictor.method
    sampled = replace(predictor, generation={"do_sample": True, "temperature": 2.0}, max_new_tokens=8)
    first = sampled(table)["answer"]
    assert sampled(table)["answer"] == first
    assert replace(sampled, seed=1)(table)["answer"] != first


@pytest.mark.usefixtures("no_model")
def test_bad_input_is_refused_before_a_model_is_loaded(rows, write):
    path = write(rows)
    for arguments, says in (
        (("--method", "st4"), "no method called 'st4'"),
        (("--method", "untouched", "--budget", "tokens=0.5"), "cannot have the budget"),
        (("--budget", "half"), "is no budget"),
        (("--actors", "2"), "only for --ray"),
        (("--device", "tpu"), "device"),
    ):
        result = batch("reference", path, *arguments)
        assert result.exit_code == 2
        assert says in error_line(result), arguments
    result = batch("reference", path.with_name("none.jsonl"))
    assert "cannot be read" in error_line(result)
    assert "has no prompts" in error_line(batch("reference", write([])))
