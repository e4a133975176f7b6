"""The questions that go with ``reference-lm``."""

import pytest

from vistrim.evaluation.scoring import score
from vistrim.evaluation.summary import GROUPS
from vistrim.reference.items import TASK_NAMES as OTHERS
from vistrim.reference.items import with_images
from vistrim.reference.lm.items import SENTENCES, TASK_NAMES, TOGETHER, items
from vistrim.reference.suites import suite_of


@pytest.mark.parametrize("task", TASK_NAMES)
def test_items_are_reproducible_and_more_of_them_only_add(task):
    few, more = items(task, "test", "full", 2), items(task, "test", "full", 4)
    assert [(item.id, item.prompt, item.answer) for item in few] == [
        (item.id, item.prompt, item.answer) for item in more[:2]
    ]
    assert len({item.id for item in more}) == 4
    assert few[1].image().tobytes() == more[1].image().tobytes()
    assert all(score(task, item.answer, item.answer, item.prompt) == 1 for item in more)


@pytest.mark.parametrize("task", ["color", "portrait-sentence", "easy-vqa"])
def test_other_seeds_and_splits_ask_other_questions(task):
    def ids(**changed):
        return {item.id for item in items(task, **({"split": "test", "level": "full", "number": 5} | changed))}

    assert not ids() & ids(seed=1)
    assert not ids() & ids(split="train")


def test_the_wanted_form_is_in_the_question():
    assert items("color", "test", "full", 1)[0].prompt.endswith(" Answer in one word.")
    assert items("easy-vqa", "test", "full", 1)[0].prompt.endswith(" Answer in one word.")
    for task in SENTENCES:
        assert items(task, "test", "full", 1)[0].prompt.endswith(" Answer in a sentence.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("colour", "test", "full", 1), "no task 'colour'"),
        (("color", "test", "huge", 1), "no level 'huge'"),
        (("color", "tests", "full", 1), "split must be one of"),
        (("easy-vqa", "validation", "full", 1), "leave the task out"),
    ],
)
def test_what_there_is_not(arguments, says):
    with pytest.raises(ValueError, match=says):
        items(*arguments)


def test_each_model_is_asked_what_it_was_trained_to_answer():
    assert suite_of("reference-lm").tasks == TASK_NAMES
    assert suite_of("reference").tasks == suite_of("org/model").tasks == OTHERS


def test_every_task_is_in_one_group_of_the_results():
    assert sorted(task for tasks in GROUPS.values() for task in tasks) == sorted(TASK_NAMES)
    assert {*TOGETHER["short"], *TOGETHER["sentence"]} < {*TASK_NAMES}


def test_black_and_wrong_images():
    own = items("color", "test", "full", 2)
    assert not any(with_images(own, "black")[0].image().tobytes())
    assert with_images(own, "wrong")[0].image().tobytes() == own[1].image().tobytes()
