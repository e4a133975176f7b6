"""Questions in a folder of Hugging Face's `datasets`: the same as in a file."""

import json

import pytest

pytest.importorskip("datasets")

import datasets

from tests.cli.conftest import save_image
from vistrim.errors import InputError
from vistrim.evaluation import read_questions


def test_a_data_set_on_disk_is_read_as_a_file(tmp_path):
    paths = [save_image(tmp_path / name) for name in ("a.png", "b.png")]
    columns = {"prompt": ["what", "which"], "answer": ["w", "B"], "choices": [None, ["x", "y"]]}
    folder = tmp_path / "set"
    stored = datasets.Dataset.from_dict({"image": paths, **columns}).cast_column("image", datasets.Image())
    stored.save_to_disk(folder)
    file = tmp_path / "own.jsonl"
    rows = [dict(zip(("image", *columns), row, strict=True)) for row in zip(paths, *columns.values(), strict=True)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found, expected = read_questions(folder), read_questions(file)
    assert [(q.id, q.prompt, q.answers) for q in found] == [(q.id, q.prompt, q.answers) for q in expected]
    assert found[1].images()[0].tobytes() == expected[1].images()[0].tobytes()

    for key, kind in (("images", "image"), ("video", "video")):
        several = datasets.Dataset.from_dict({key: [paths], "prompt": ["what"], "answer": ["w"]})
        several.cast_column(key, datasets.List(datasets.Image())).save_to_disk(tmp_path / key)
        (item,) = read_questions(tmp_path / key)
        assert len(item.images()) == 2
        assert {part["type"] for part in item.shown()} == {kind}


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder of"):
        read_questions(tmp_path)
    split = datasets.Dataset.from_dict({"prompt": ["what"]})
    datasets.DatasetDict({"test": split}).save_to_disk(tmp_path / "all")
    with pytest.raises(InputError, match=r"give the folder of one, such as .*test"):
        read_questions(tmp_path / "all")
    (tmp_path / "a.mp4").write_bytes(b"film")
    film = datasets.Dataset.from_dict({"video": [str(tmp_path / "a.mp4")], "prompt": ["what"], "answer": ["w"]})
    film.cast_column("video", datasets.Video()).save_to_disk(tmp_path / "film")
    with pytest.raises(InputError, match='row 1: "video" must be a list of image files'):
        read_questions(tmp_path / "film")
