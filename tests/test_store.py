"""The store of results, whatever became of its file or of the process that wrote it."""

import json
import multiprocessing
from pathlib import Path

import pytest

from vistrim._utils.store import Store, check_settings
from vistrim.errors import InUseError, ResumeError

SETTINGS = {"model": "tiny", "shape": (1, 2)}


def decode(row):
    return row["value"]


def store(path, settings=SETTINGS):
    return Store(path, settings, ("item",), decode)


@pytest.fixture
def path(tmp_path):
    """Of a file with two rows, in a folder that the store has made."""
    found = tmp_path / "not" / "there yet" / "rows.jsonl"
    with store(found) as one:
        one.put([{"item": "a", "value": 1}, {"item": [2, "b"], "value": "zwei\n|ü"}])
    return found


def test_rows_are_there_again_and_the_last_of_a_key_counts(path):
    with store(path) as one:
        assert one.rows == {("a",): 1, ((2, "b"),): "zwei\n|ü"}
        one.put([{"item": "a", "value": 3}])
        one.put([])
    with store(path) as one:
        assert one.rows["a",] == 3
    header, *rows = map(json.loads, path.read_text().splitlines())
    assert header == {"settings": {"model": "tiny", "shape": [1, 2]}}
    assert len(rows) == 3


def test_a_kill_in_the_middle_of_a_line_costs_that_line_alone(path):
    whole = path.read_bytes()
    first, last = whole.index(b"\n") + 1, whole.rindex(b"{")
    for cut in (0, 3, first, last, last + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with store(path) as one:
            assert one.rows == ({("a",): 1} if cut >= last else {})
            one.put([{"item": "c", "value": 4}])
        with store(path) as one:
            assert one.rows["c",] == 4


def test_nothing_is_written_before_the_first_row_and_without_a_path_never(tmp_path):
    with store(tmp_path / "rows.jsonl") as one:
        one.claim({"files": "x"})
    assert not (tmp_path / "rows.jsonl").exists()
    with store(None) as one:
        one.put([{"item": "a", "value": 1}])
        assert one.rows == {("a",): 1}


def test_other_settings_are_refused_by_name(path):
    with pytest.raises(ResumeError, match=r"model 'tiny', now 'small'\): give another --out, or delete it"):
        store(path, SETTINGS | {"model": "small"})
    check_settings(path, {"shape": (1, 2)})
    check_settings(path.with_name("none"), {"shape": 3})
    with pytest.raises(ResumeError, match=r"shape \[1, 2\], now 3"):
        check_settings(path, {"shape": 3})


def test_what_only_some_rows_depend_on_is_refused_where_it_changed(path):
    for _ in range(2):
        with store(path) as one:
            one.claim({"files of a": "x"})
            one.claim({"files of b": "y"})
    with store(path) as one, pytest.raises(ResumeError, match="files of a 'x', now 'z'"):
        one.claim({"files of a": "z"})


def test_what_is_damaged_is_named(path):
    whole = path.read_bytes()
    for line in (b'{"item": "a"}', b'{"value": 1}', b"nonsense", b"[1]", b"\xff\xfe"):
        path.write_bytes(whole + b"\n" + line + b"\n")
        with pytest.raises(ResumeError, match="line 5 is damaged: delete that line"):
            store(path)
    path.write_bytes(whole[whole.index(b"\n") + 1 :])
    with pytest.raises(ResumeError, match="does not begin with its settings"):
        store(path)


def _opened(path: Path) -> str:
    try:
        store(path).close()
    except InUseError as error:
        return str(error)
    return ""


def test_two_processes_do_not_write_to_one_file(path):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with store(path):
            assert "in use by another run" in pool.apply(_opened, (path,))
        assert pool.apply(_opened, (path,)) == ""
