import json

import pytest

from tests.evaluation.samples import failure, sample
from vistrim.evaluation import RecordFile, ResumeError

SETTINGS = {"model": "tiny", "batch_size": 2}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "not" / "there yet"


def test_records_are_there_again_in_a_new_run(folder):
    RecordFile(folder, SETTINGS).append([sample("a"), sample("a", "st3", answer="blau\n|"), failure("b")])
    again = RecordFile(folder, SETTINGS)
    assert again.sample("untouched", "a") == sample("a")
    assert again.sample("st3", "a") == sample("a", "st3", answer="blau\n|")
    assert again.failure("untouched", "b") == failure("b")
    assert again.sample("untouched", "b") is None
    assert again.sample("st3", "b") is None


@pytest.mark.parametrize("cut", [2, 20])
def test_half_a_line_is_dropped_and_the_file_goes_on(folder, cut):
    RecordFile(folder, SETTINGS).append([sample("a"), sample("b")])
    path = folder / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = RecordFile(folder, SETTINGS)
    assert again.sample("untouched", "a") == sample("a")
    assert again.sample("untouched", "b") is None
    again.append([sample("b")])
    assert [json.loads(line)["item"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_last_line_without_its_end_is_kept(folder):
    RecordFile(folder, SETTINGS).append([sample("a"), sample("b")])
    path = folder / "samples.jsonl"
    path.write_bytes(b"\n" + path.read_bytes()[:-1])
    again = RecordFile(folder, SETTINGS)
    assert again.sample("untouched", "b") == sample("b")
    again.append([sample("c")])
    assert RecordFile(folder, SETTINGS).sample("untouched", "c") == sample("c")


def test_a_known_failure_is_not_repeated(folder):
    for _ in range(2):
        RecordFile(folder, SETTINGS).append([failure("a")])
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("content", ["", "{", "[]x", "[1]", "3"])
def test_damaged_settings_are_named(folder, content):
    RecordFile(folder, SETTINGS)
    (folder / "settings.json").write_text(content)
    with pytest.raises(ResumeError, match=r"settings\.json is damaged"):
        RecordFile(folder, SETTINGS)


def test_an_answer_replaces_an_earlier_failure(folder):
    records = RecordFile(folder, SETTINGS)
    records.append([failure("a")])
    records.append([sample("a")])
    for known in (records, RecordFile(folder, SETTINGS)):
        assert known.sample("untouched", "a") == sample("a")
        assert known.failure("untouched", "a") is None


def test_other_settings_are_refused_by_name(folder):
    RecordFile(folder, SETTINGS)
    with pytest.raises(ResumeError, match=r"batch_size 2, now 4\): give another folder, or delete this one"):
        RecordFile(folder, SETTINGS | {"batch_size": 4})


@pytest.mark.parametrize("line", [b'{"method": "st3"}', b"nonsense", b"\xff\xfe"])
def test_a_damaged_line_is_named(folder, line):
    RecordFile(folder, SETTINGS).append([sample("a")])
    with (folder / "samples.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ResumeError, match="line 2 is damaged"):
        RecordFile(folder, SETTINGS)


def test_samples_without_settings_are_not_trusted(folder):
    RecordFile(folder, SETTINGS).append([sample("a")])
    (folder / "settings.json").unlink()
    with pytest.raises(ResumeError, match="without settings"):
        RecordFile(folder, SETTINGS)
