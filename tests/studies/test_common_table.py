"""The table of all methods: it resumes, grows, and is what the docs show."""

import json
from functools import cache

import pytest

from studies.common_table import measure, report
from studies.common_table.figures import figures
from studies.common_table.rows import BASELINES, Row
from studies.common_table.samples import unpack
from vistrim.evaluation import Records, runner

MODELS = sorted(path.parent for path in measure.FOLDER.glob("*/results.json"))
LARGEST = 2_000_000
COMMON = ("--model", "reference-small", "--tasks", "color", "--budgets", "0.33", "--questions", "1")


@pytest.fixture
def answered(monkeypatch):
    """Items that are answered, by method."""
    found = []
    original = runner._answered

    def counting(model, processor, items, method, longest):
        found.extend((runner._name(method).split(":")[0], item.id) for item in items)
        return original(model, processor, items, method, longest)

    monkeypatch.setattr(runner, "_answered", counting)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_table_resumes_and_only_grows(tmp_path, answered, monkeypatch):
    def run(*more):
        answered.clear()
        measure.run(measure.read_options([*COMMON, "--max-new-tokens", "2", "--out", str(tmp_path), *more]))
        return list(answered), report.read(folder)

    monkeypatch.setattr(measure, "load", cache(measure.load))

    folder = tmp_path / "reference-small"
    asked, first = run("--method", "vtw", "--minutes", "0")
    assert {name for name, _ in asked} == {"untouched"}
    asked, first = run("--method", "vtw", "--method", "fastv")
    names = {name for name, _ in asked}
    assert names == {*BASELINES, "vtw"}
    assert len(asked) == len(names)
    (fastv,) = (row for row in first["rows"] if row["label"] == "fastv")
    assert "it reaches from 0.5" in fastv["reason"]

    packed = (folder / "samples.jsonl.gz").read_bytes()
    asked, again = run("--method", "vtw")
    assert not asked
    assert again == first
    assert (folder / "samples.jsonl.gz").read_bytes() == packed

    # From the committed file alone, with another release of transformers.
    release = measure.stamp() | {"transformers": "9.0.0"}
    monkeypatch.setattr(measure, "stamp", lambda: release)
    (folder / "samples.jsonl").unlink()
    asked, more = run("--method", "divprune")
    assert {name for name, _ in asked} == {"divprune"}
    assert first["figures"].items() <= more["figures"].items()
    assert "; 9.0.0: `divprune at 0.33`." in report.section(more)
    assert first["rows"] == [row for row in more["rows"] if row["label"] != "divprune"]

    asked, larger = run("--method", "vtw", "--questions", "2")
    assert len(asked) == len(names) + 1
    # divprune was not asked for, and has one question per task.
    assert larger["questions"] == 1
    assert larger["figures"] == more["figures"]
    report.write(folder)
    assert (folder / "results.png").exists()
    assert "`divprune`" in report.section(larger)


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_the_docs_show_the_results(folder):
    begin, end = report.markers(folder.name)
    assert f"{begin}\n{report.section(report.read(folder))}\n{end}" in report.DOCS.read_text(encoding="utf-8")
    assert (folder / "samples.jsonl.gz").stat().st_size <= LARGEST


@pytest.mark.slow
@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_the_results_follow_from_the_samples(folder, tmp_path):
    content = report.read(folder)
    unpack(folder / "samples.jsonl.gz", tmp_path / "samples.jsonl")
    items = measure.asked(measure.read_options(["--model", content["model"]]), content["questions"])
    with Records(tmp_path / "samples.jsonl", {}) as records:
        found = figures(records, items, [Row(**row) for row in content["rows"]])
    assert json.loads(json.dumps(found["figures"])) == content["figures"]
