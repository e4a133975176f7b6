import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.invoke import error_line, vistrim
from vistrim.evaluation import answering
from vistrim.evaluation.entries import read_entries

SMALL = ("--tasks", "color,description", "--limit", "2", "--max-new-tokens", "4", "--level", "several")
METHODS = ("--method", "st3:preset=compact", "--method", "uniform:keep=4")


def evaluate(checkpoint, out, *arguments):
    return vistrim("eval", "--model", checkpoint, "--out", str(out), *SMALL, *METHODS, *arguments)


@dataclass(frozen=True)
class Evaluated:
    """A folder of results, and what the command printed. Tests work on copies."""

    folder: Path
    stdout: str

    def copied(self, to: Path) -> Path:
        return Path(shutil.copytree(self.folder, to))


@pytest.fixture(scope="module")
def evaluated(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    result = evaluate(checkpoint, folder)
    assert result.exit_code == 0
    return Evaluated(folder, result.stdout)


def test_tables_and_files(evaluated):
    folder = evaluated.folder
    for text in ("Short answers: 2 items", "Description: 2 items", "untouched", "uniform:keep=4", "results.json"):
        assert text in evaluated.stdout
    found = json.loads((folder / "results.json").read_text())
    assert [row["label"] for row in found["methods"]] == ["untouched", "st3:preset=compact", "uniform:keep=4"]
    assert found["settings"]["limit"] == 2
    assert found["environment"]["torch"]
    figures = found["methods"][2]["groups"]["Short answers"]
    assert figures["average_tokens"] == 4
    entries = {(entry.protocol["task"], entry.method): entry for entry in read_entries(folder)}
    assert len(entries) == 2 * 3
    entry = entries["color", found["methods"][2]["method"]]
    assert (entry.tokens, entry.kv, entry.score) == (4, figures["kv_mean"], figures["accuracy"])
    assert figures["kv_mean"] < 1
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")
    markdown = (folder / "results.md").read_text()
    assert "| uniform:keep=4 |" in markdown
    assert "st3:preset=compact = st3:start_layer=None" in markdown
    assert "shows that a method works as designed" not in markdown
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines() if "item" in line]
    assert len(samples) == 3 * 4


@pytest.mark.usefixtures("undrawn")
def test_json_is_the_results_file(checkpoint, evaluated, tmp_path):
    out = evaluated.copied(tmp_path / "out")
    (out / "results.json").unlink()
    result = evaluate(checkpoint, out, "--json")
    assert json.loads(result.stdout) == json.loads((out / "results.json").read_text())


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_answers_nothing_again(checkpoint, evaluated, monkeypatch):
    # Not in a copy: the folder is in what is printed.
    samples = (evaluated.folder / "samples.jsonl").read_bytes()
    drawn = (evaluated.folder / "results.png").read_bytes()
    monkeypatch.setattr("vistrim.evaluation.runner.answer", lambda *_: pytest.fail("answered again"))
    second = evaluate(checkpoint, evaluated.folder)
    assert second.stdout == evaluated.stdout
    assert (evaluated.folder / "samples.jsonl").read_bytes() == samples
    (evaluated.folder / "results.png").write_bytes(drawn)


@pytest.mark.usefixtures("undrawn")
def test_methods_that_the_tables_leave_out_are_named(checkpoint, evaluated, tmp_path):
    out = evaluated.copied(tmp_path / "out")
    result = vistrim("eval", "--model", checkpoint, "--out", str(out), *SMALL, METHODS[0], METHODS[1])
    (note,) = result.stderr.splitlines()
    assert note.startswith(f"note: {out / 'samples.jsonl'} also has answers of uniform:keep=4")
    assert "st3" not in note
    # With both methods again, nothing is left out.
    assert evaluate(checkpoint, out).stderr == ""


@pytest.mark.usefixtures("undrawn")
def test_another_model_of_that_name_is_not_mixed_in(checkpoint, evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr("vistrim.loading.fingerprint", lambda *_: "other")
    result = evaluate(checkpoint, evaluated.copied(tmp_path / "out"))
    assert result.exit_code == 1
    assert "weights" in error_line(result)
    assert "give another --out" in error_line(result)


@pytest.mark.usefixtures("undrawn")
def test_failures_are_reported_and_fail_the_command(checkpoint, tmp_path, monkeypatch):
    def failing(model, processor, items, method, max_new_tokens):
        if method is not None and any(item.task.name == "color" for item in items):
            raise RuntimeError("broken kernel")
        return answering.answer(model, processor, items, method, max_new_tokens)

    monkeypatch.setattr("vistrim.evaluation.runner.answer", failing)
    result = evaluate(checkpoint, tmp_path)
    assert result.exit_code == 1
    assert "4 items failed and are left out" in result.stderr
    assert "RuntimeError: broken kernel" in result.stderr
    markdown = (tmp_path / "results.md").read_text()
    assert "4 items failed" in markdown
    found = json.loads((tmp_path / "results.json").read_text())
    assert "color" not in found["methods"][1]["tasks"]
    assert found["methods"][1]["tasks"]["description"]["items"] == 2


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("change", ["config.json", "generation_config.json", "chat_template.jinja"])
def test_a_changed_checkpoint_is_not_mixed_with_its_former_self(checkpoint, evaluated, tmp_path, change):
    model = tmp_path / Path(checkpoint).name
    shutil.copytree(checkpoint, model)
    text = (model / change).read_text()
    changed = {"config.json": ("10000", "20000"), "generation_config.json": ("{", '{"temperature": 0.5,')}
    old, new = changed.get(change, ("USER", "user"))
    assert old in text
    (model / change).write_text(text.replace(old, new, 1))
    result = evaluate(str(model), evaluated.copied(tmp_path / "out"))
    assert result.exit_code == 1
    assert "weights" in error_line(result)


@pytest.mark.usefixtures("undrawn")
def test_a_renamed_checkpoint_goes_on(checkpoint, evaluated, tmp_path, monkeypatch):
    shutil.copytree(checkpoint, tmp_path / "renamed")
    monkeypatch.setattr("vistrim.evaluation.runner.answer", lambda *_: pytest.fail("answered again"))
    assert evaluate(str(tmp_path / "renamed"), evaluated.copied(tmp_path / "out")).exit_code == 0


def test_if_all_items_fail_the_reason_is_printed(checkpoint, tmp_path, monkeypatch):
    def failing(*_):
        raise RuntimeError("broken kernel")

    monkeypatch.setattr("vistrim.evaluation.runner.answer", failing)
    result = evaluate(checkpoint, tmp_path)
    assert result.exit_code == 1
    assert "RuntimeError: broken kernel" in result.stderr
    assert not (tmp_path / "results.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_odd_labels_and_folders_are_printed_as_they_are(checkpoint, evaluated, tmp_path):
    out = evaluated.copied(tmp_path / "[bold]r[/x]")
    result = evaluate(checkpoint, out, "--method", "uniform:\n keep=5")
    assert result.exit_code == 0
    assert "[bold]r[/x]" in result.stdout
    assert "| uniform: keep=5 |" in (out / "results.md").read_text()


def test_truncated_answers_are_reported(evaluated):
    assert "untouched, Description: 100.0 % of the answers were cut off; raise --max-new-tokens" in evaluated.stdout


@pytest.mark.usefixtures("undrawn")
def test_untouched_alone(checkpoint, tmp_path):
    result = vistrim("eval", "--model", checkpoint, "--out", str(tmp_path), *SMALL, "--method", "untouched", "--json")
    assert [row["method"] for row in json.loads(result.stdout)["methods"]] == ["untouched"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tasks", "colour"), "no task 'colour'"),
        (("--tasks", ","), "no task"),
        (("--level", "huge"), "no level 'huge'"),
        (("--split", "all"), "split must be one of"),
        (("--images", "blue"), "no images of kind 'blue'"),
        (("--tasks", "relation", "--level", "single"), "hardly offer any relation question"),
        (("--method", "st4"), "no method called 'st4'"),
        (("--method", "uniform:keep=4", "--method", "uniform: keep=4"), "are the same"),
        (("--method", "st3:start_layer=99"), "start_layer"),
        (("--limit", "0"), "limit"),
        (("--batch-size", "0"), "batch-size"),
        (("--dtype", "int8"), "dtype"),
    ],
)
def test_bad_input_is_refused_before_any_work(checkpoint, tmp_path, arguments, says):
    out = tmp_path / "out"
    tasks = () if "--tasks" in arguments else ("--tasks", "color")
    result = vistrim("eval", "--model", checkpoint, "--out", str(out), *tasks, *arguments)
    assert result.exit_code == 2
    assert says in error_line(result)
    assert not out.exists()


def test_questions_without_an_answer_are_refused_with_advice_for_this_command(no_model, own, tmp_path):
    line = error_line(vistrim("eval", "--data", str(own), "--out", str(tmp_path / "out")))
    assert line.endswith(
        'line 2: there is no "answer": add the correct one, or write "scorer": "none" if there is none'
    )


@pytest.mark.usefixtures("undrawn")
def test_missing_packages_are_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = evaluate(checkpoint, tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'vistrim[eval]'" in error_line(result)


@pytest.mark.usefixtures("undrawn")
def test_out_that_is_a_file_is_refused(checkpoint, tmp_path):
    taken = tmp_path / "taken"
    taken.touch()
    result = evaluate(checkpoint, taken)
    assert result.exit_code == 2
    assert f"{taken} is a file: give a folder" in error_line(result)
    assert Path(taken).is_file()
