import builtins

import pytest
from PIL import Image

from vistrim.errors import MissingPackageError
from vistrim.evaluation.items import with_images
from vistrim.reference import easy_vqa
from vistrim.reference.items import EVALUATED, items


@pytest.mark.parametrize("task", EVALUATED)
def test_items_are_reproducible_and_more_of_them_only_add(task):
    few, more = items(task, "test", "full", 3), items(task, "test", "full", 6)
    assert [item.id for item in few] == [item.id for item in more[:3]]
    assert [item.prompt for item in few] == [item.prompt for item in more[:3]]
    assert len({item.id for item in more}) == 6
    assert all(a.image().tobytes() == b.image().tobytes() for a, b in zip(few, more, strict=False))
    assert all(item.task.name == task and item.prompt and item.answer for item in more)


@pytest.mark.parametrize("task", ["color", "easy-vqa"])
def test_other_seeds_and_splits_ask_other_questions(task):
    def ids(**changed):
        return {item.id for item in items(task, **({"split": "test", "level": "full", "number": 5} | changed))}

    assert not ids() & ids(seed=1)
    assert not ids() & ids(split="train")


def test_easy_vqa_is_the_published_set():
    asked = items("easy-vqa", "test", "full", 100_000)
    assert len(asked) == 9673
    assert len(easy_vqa.pictures("train")) == 4000
    first = easy_vqa.pictures("test")[0]
    assert first.open().size == (64, 64)
    assert first.open().mode == "RGB"
    assert (first.questions[0].prompt, first.questions[0].answer) == ("what is the red shape?", "triangle")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("colour", "test", "full", 1), "no task 'colour'"),
        (("color", "test", "huge", 1), "no level 'huge'"),
        (("easy-vqa", "test", "huge", 1), "no level 'huge'"),
        (("color", "tests", "full", 1), "split must be one of"),
        (("easy-vqa", "validation", "full", 1), "only the splits train and test, not 'validation': leave the task out"),
        (("relation", "test", "single", 1), "hardly offer any relation question"),
    ],
)
def test_what_there_is_not_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        items(*arguments)


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    easy_vqa.pictures.cache_clear()
    really = builtins.__import__

    def without(name, *rest):
        if name == "easy_vqa":
            raise ImportError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match="pip install easy-vqa"):
        items("easy-vqa", "test", "full", 1)


def test_wrong_images_belong_to_other_items_and_black_ones_are_black():
    own = items("color", "test", "several", 3)
    wrong, black = with_images(own, "wrong"), with_images(own, "black")
    pictures = [item.image().tobytes() for item in own]
    assert [item.image().tobytes() for item in wrong] == [pictures[-1], pictures[0], pictures[1]]
    assert all(item.image().tobytes() == Image.new("RGB", (144, 144)).tobytes() for item in black)
    assert [item.prompt for item in wrong] == [item.prompt for item in black] == [item.prompt for item in own]
    assert with_images(own, "own") == own
    assert len({item.id for item in (*own, *wrong, *black)}) == 9
    assert with_images([], "wrong") == []


def test_a_wrong_image_is_another_image():
    asked = items("easy-vqa", "test", "full", 400)
    for item, wrong in zip(asked, with_images(asked, "wrong"), strict=True):
        assert not wrong.id.removeprefix(f"{item.id}/about/").startswith(f"{item.image_id}/")
    with pytest.raises(ValueError, match="two or more"):
        with_images(asked[:1], "wrong")


def test_ids_tell_which_wrong_image_was_shown():
    few, more = (with_images(items("color", "test", "several", n), "wrong") for n in (3, 6))
    assert few[0].id != more[0].id
    assert few[0].image().tobytes() != more[0].image().tobytes()
