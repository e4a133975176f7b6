"""The folder of a benchmark, whatever became of it."""

import json

import pytest

from tests.benchmark.subjects import cost, run
from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.run_file import RunFile
from vistrim.errors import ResumeError

LABELS = [UNTOUCHED, "st3"]
SETTINGS = {"model": "tiny", "shape": (1, 2)}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "not" / "there yet"


def filled(folder, runs=4):
    records = RunFile(folder, SETTINGS, LABELS)
    records.note_cost(UNTOUCHED, cost())
    records.note_cost("st3", cost("st3:ratio=0.3"))
    for i in range(runs):
        records.append(run(LABELS[(i + i // 2) % 2], i // 2, 0.1, 0.3, [0.1, 1 / 3], peak_bytes=i))
    return records


def test_everything_is_there_again(folder):
    records, again = filled(folder), RunFile(folder, SETTINGS, LABELS)
    assert again.runs == records.runs
    assert again.costs == records.costs == {UNTOUCHED: cost(), "st3": cost("st3:ratio=0.3")}
    assert (again.rounds, again.next_round) == (2, 2)


def test_an_incomplete_round_is_taken_out(folder):
    records = filled(folder, 3)
    assert (records.rounds, records.next_round) == (1, 2)
    again = RunFile(folder, SETTINGS, LABELS)
    assert again.runs == records.runs[:2]
    assert (again.rounds, again.next_round) == (1, 1)
    assert len((folder / "runs.jsonl").read_text().splitlines()) == 2


def test_half_a_line_is_an_incomplete_round(folder):
    runs, path = filled(folder).runs, folder / "runs.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert RunFile(folder, SETTINGS, LABELS).runs == runs[:2]
    assert len(path.read_text().splitlines()) == 2


def test_a_line_that_was_deleted_costs_its_round_alone(folder):
    runs, path = filled(folder, 6).runs, folder / "runs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    again = RunFile(folder, SETTINGS, LABELS)
    assert again.runs == runs[:2] + runs[4:]
    assert (again.rounds, again.next_round) == (2, 3)


def test_the_first_cost_counts(folder):
    records = filled(folder)
    records.note_cost("st3", cost("another"))
    assert RunFile(folder, SETTINGS, LABELS).costs["st3"] == cost("st3:ratio=0.3")


def test_other_settings_are_refused_by_name(folder):
    filled(folder)
    with pytest.raises(ResumeError, match=r"model 'tiny', now 'small'\): give another folder, or delete this one"):
        RunFile(folder, SETTINGS | {"model": "small"}, LABELS)


@pytest.mark.parametrize("line", [b'{"method": "st3"}', b"nonsense", b"\xff\xfe"])
def test_a_damaged_line_is_named(folder, line):
    filled(folder)
    with (folder / "runs.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ResumeError, match="line 5 is damaged"):
        RunFile(folder, SETTINGS, LABELS)


@pytest.mark.parametrize("content", ["{", "[1]", '{"st3": {}}', '{"st3": 3}', "{}"])
def test_costs_that_are_damaged_or_missing_are_named(folder, content):
    filled(folder)
    (folder / "costs.json").write_text(content)
    with pytest.raises(ResumeError, match="cost"):
        RunFile(folder, SETTINGS, LABELS)


def test_runs_without_settings_are_not_trusted(folder):
    filled(folder)
    (folder / "settings.json").unlink()
    with pytest.raises(ResumeError, match="without settings"):
        RunFile(folder, SETTINGS, LABELS)


def test_lines_are_json(folder):
    filled(folder, 1)
    assert json.loads((folder / "runs.jsonl").read_text())["step_seconds"] == [0.1, 1 / 3]
