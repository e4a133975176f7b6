"""Questions from a file: what is read, and what is refused with its line."""

import json
import re

import pytest
from PIL import Image

from vistrim.errors import InputError
from vistrim.evaluation.questions import digest, read_questions


@pytest.fixture
def write(tmp_path):
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), color).save(tmp_path / name)

    def written(*lines):
        path = tmp_path / "own.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return path

    return written


def test_questions_are_read_with_all_that_they_have(write):
    one, several = read_questions(
        write(
            {"image": "a.png", "prompt": " what\u2028is this ", "answer": "Red"},
            "",
            {"images": ["b.png", "a.png"], "prompt": "which", "answers": ["blue", "navy"], "task": "colors"},
        )
    )
    assert (one.prompt, one.answer, one.task.name) == ("what\u2028is this", "Red", "data")
    assert (one.score("red."), one.score("blue")) == (1, 0)
    assert [image.getpixel((0, 0)) for image in several.images()] == [(0, 0, 255), (255, 0, 0)]
    assert several.image().getpixel((0, 0)) == (0, 0, 255)
    assert (several.task.name, several.right) == ("colors", "blue | navy")
    assert [several.score(given) for given in ("Navy", "blue", "red")] == [1, 1, 0]
    assert one.picture != several.picture


def test_an_image_or_an_answer_that_changes_makes_other_questions(write):
    line = {"image": "a.png", "prompt": "what", "answers": ["red", "scarlet"]}
    found = [read_questions(write(line | changed)) for changed in ({}, {"image": "b.png"}, {"answers": ["red", "x"]})]
    assert len({digest(items) for items in found}) == 3
    assert found[0][0].id != found[1][0].id


def test_answers_may_be_missing_where_none_is_needed(write):
    (item,) = read_questions(write({"image": "a.png", "prompt": "what"}), answered=False)
    assert (item.answer, item.score("red")) == ("", 0)


def test_what_is_wrong_is_named_with_its_line(write, tmp_path):
    good = {"image": "a.png", "prompt": "what", "answer": "w"}
    for line, says in (
        ("{", "is no JSON"),
        ("[1]", "is no JSON object"),
        ({"prompt": "what", "answer": "w"}, 'has no "image"'),
        (good | {"image": 3}, '"image" must be text'),
        (good | {"images": ["a.png"]}, 'both "image" and "images"'),
        ({"images": "a.png", "prompt": "what", "answer": "w"}, '"images" must be a list'),
        (good | {"prompt": " "}, 'has no "prompt"'),
        (good | {"answer": 3}, '"answer" must be text'),
        (good | {"answer": " "}, 'has no "answer"'),
        (good | {"task": 3}, '"task" must be text'),
        (good | {"prompt": "\ud800"}, "half a character"),
        (good | {"image": "c.png"}, "there is no image file"),
        (good | {"image": "own.jsonl"}, "is not an image"),
    ):
        with pytest.raises(InputError, match=f"line 2.*{re.escape(says)}"):
            read_questions(write(good, line))
    with pytest.raises(InputError, match="no question"):
        read_questions(write("", " "))
    with pytest.raises(InputError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")
