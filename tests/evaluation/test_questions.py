"""Questions from a file: valid lines, and errors that name the line."""

import json
import re

import pytest
from PIL import Image

from vistrim.errors import InputError
from vistrim.evaluation.question_files import read_questions, rows
from vistrim.evaluation.questions import LETTER_HINT, digest
from vistrim.evaluation.scorers import SCORERS


@pytest.fixture
def write(tmp_path):
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), color).save(tmp_path / name)
    Image.new("L", (30, 40)).save(tmp_path / "tall.png")

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
    assert one.image_id != several.image_id


def test_frames_are_a_video(write):
    line = {"prompt": "what", "answer": "red"}
    frames, images = read_questions(
        write(line | {"video": ["a.png", "b.png"]}, line | {"images": ["a.png", "b.png"], "video": None})
    )
    assert frames.image_id != images.image_id
    (part,) = frames.shown()
    assert [part["type"], *(frame.getpixel((0, 0)) for frame in part["video"])] == ["video", (255, 0, 0), (0, 0, 255)]
    assert [part["type"] for part in images.shown()] == ["image", "image"]


def test_an_image_or_an_answer_that_changes_makes_other_questions(write):
    line = {"image": "a.png", "prompt": "what", "answers": ["red", "scarlet"]}
    found = [read_questions(write(line | changed)) for changed in ({}, {"image": "b.png"}, {"answers": ["red", "x"]})]
    assert len({digest(items) for items in found}) == 3
    assert found[0][0].id != found[1][0].id


def test_answers_may_be_missing_where_none_is_needed(write):
    (item,) = read_questions(write({"image": "a.png", "prompt": "what"}), answered=False)
    assert (item.answer, item.score("red")) == ("", 0)


def test_scorers_by_name():
    for name, given, right, expected in (
        ("exact", "Red.", "red", 1),
        ("number", "1,040", "1000", 1),
        ("number", "$1,060", "1000", 0),
        ("number", "52%", "0.5", 1),
        ("number", "0.1", "0", 0),
        ("number", "about five", "5", 0),
        ("anls", "hallo", "hello", 0.8),
        ("anls", "h", "hello", 0),
        ("anls", "", "", 1),
        ("f1", "The red, big star", "a red star", 0.8),
        ("f1", "blue", "red", 0),
    ):
        assert SCORERS[name](given, right) == pytest.approx(expected), (name, given)


def test_choices_are_in_the_prompt_and_scored_by_letter(write):
    line = {"image": "a.png", "prompt": "which", "choices": ["cat", "dog"]}
    by_letter, by_text = read_questions(write(line | {"answer": "B"}, line | {"answer": "Dog", "hint": "One letter."}))
    assert by_letter.prompt.splitlines() == ["which", "A. cat", "B. dog", LETTER_HINT]
    assert by_text.prompt.splitlines()[-1] == "One letter."
    for given, expected in (
        ("B", 1),
        ("(B)", 1),
        ("B. dog", 1),
        ("dog.", 1),
        ("The answer is B.", 1),
        ("A", 0),
        ("cat", 0),
        ("Beagle", 0),
        ("A dog", 0),
        ("C", 0),
        ("", 0),
    ):
        assert by_letter.score(given) == by_text.score(given) == expected, given


def test_questions_without_a_score_need_no_answer(write):
    line = {"image": "a.png", "prompt": "what", "scorer": "none", "hint": "In one word.", "id": 7}
    (item,) = read_questions(write(line))
    assert not item.task.scored
    assert (item.prompt, item.name) == ("what\nIn one word.", "7")


def test_bad_rows_are_reported_beside_the_others(write):
    good = {"image": "a.png", "prompt": "what"}
    found = list(rows(write(good, "{", "", good | {"image": "c.png"}, good), answered=False))
    assert [number for number, _ in found] == [1, 2, 4, 5]
    assert [isinstance(row, InputError) for _, row in found] == [False, True, True, False]


def test_errors_name_the_line(write, tmp_path):
    good = {"image": "a.png", "prompt": "what", "answer": "w"}
    for line, says in (
        ("{", "is not valid JSON"),
        ("[1]", "is not a JSON object"),
        ({"prompt": "what", "answer": "w"}, 'no "image"'),
        (good | {"image": 3}, '"image" must be text'),
        (good | {"images": ["a.png"]}, 'both "image" and "images"'),
        ({"images": "a.png", "prompt": "what", "answer": "w"}, '"images" must be a list'),
        (good | {"video": ["a.png"]}, 'both "image" and "video"'),
        (good | {"image": None, "video": "a.mp4"}, '"video" must be a list of image files'),
        (good | {"image": None, "video": []}, 'no "image"'),
        (good | {"image": None, "video": [3]}, '"video" must be text'),
        (good | {"image": None, "video": ["a.png", "c.png"]}, "there is no image file"),
        (good | {"image": None, "video": ["a.png", "tall.png"]}, "frame 2 of the video has 30 x 40 pixels"),
        (good | {"prompt": " "}, 'no "prompt"'),
        (good | {"answer": 3}, '"answer" must be text'),
        (good | {"answer": " "}, 'no "answer"'),
        (good | {"task": 3}, '"task" must be text'),
        (good | {"prompt": "\ud800"}, "lone surrogate"),
        (good | {"image": "c.png"}, "there is no image file"),
        (good | {"image": "own.jsonl"}, "is not an image"),
        (good | {"scorer": "bleu"}, "choose exact, number, anls, f1, choice, none"),
        (good | {"scorer": "f1"}, 'the task "data" has another scorer'),
        (good | {"scorer": "choice", "task": "t"}, 'needs "choices"'),
        (good | {"choices": ["w"], "task": "t"}, "must be 2 to 26 texts"),
        (good | {"choices": ["x", "y"], "task": "t"}, 'the answer "w" is none of the "choices"'),
        (good | {"hint": 3}, '"hint" must be text'),
        (good | {"id": True}, '"id" must be text'),
    ):
        with pytest.raises(InputError, match=f"line 2.*{re.escape(says)}"):
            read_questions(write(good, line))
    with pytest.raises(InputError, match="no question"):
        read_questions(write("", " "))
    with pytest.raises(InputError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")
