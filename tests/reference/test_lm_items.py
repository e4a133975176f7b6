"""The questions that go with ``reference-lm``."""

import pytest

from vistrim.evaluation.items import with_images
from vistrim.reference.items import EVALUATED as OTHERS
from vistrim.reference.lm.items import EVALUATED, SENTENCES, TOGETHER, SentenceItem, items
from vistrim.reference.suites import suite_of


@pytest.mark.parametrize("task", EVALUATED)
def test_items_are_reproducible_and_more_of_them_only_add(task):
    few, more = items(task, "test", "full", 2), items(task, "test", "full", 4)
    assert [(item.id, item.prompt, item.answer) for item in few] == [
        (item.id, item.prompt, item.answer) for item in more[:2]
    ]
    assert len({item.id for item in more}) == 4
    assert few[1].image().tobytes() == more[1].image().tobytes()
    assert all(item.task.name == task and item.score(item.answer) == 1 for item in more)


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


def test_each_model_gets_the_questions_that_it_was_trained_on():
    assert suite_of("reference-lm").evaluated == EVALUATED
    assert suite_of("reference").evaluated == suite_of("org/model").evaluated == OTHERS
    assert {*TOGETHER["short"], *TOGETHER["sentence"]} < {*EVALUATED}


@pytest.mark.parametrize(
    ("prompt", "given", "right", "expected"),
    [
        ("What color is the star?", "The star is red.", "The star is red.", 1),
        ("What color is the star?", "it is Red", "The star is red.", 1),
        # The question's own words are no answer.
        ("What color is the star?", "The star is blue.", "The star is red.", 0),
        ("What color is the star?", "The star is red and blue.", "The star is red.", 2 / 3),
        ("Is there a red star?", "No, there is no red star.", "Yes, there is a red star.", 0),
        ("How many stars are there?", "There are 2 stars.", "There are 3 stars.", 0),
        ("Where is the star?", "The star is at the top right.", "The star is at the top left.", 1 / 2),
        ("What color is the star?", "", "The star is red.", 0),
    ],
)
def test_sentences_are_scored_by_the_words_that_they_add_to_the_question(prompt, given, right, expected):
    item = SentenceItem("a", EVALUATED["color-sentence"], f"{prompt} Answer in a sentence.", right, lambda: None)
    assert item.score(given) == pytest.approx(expected)


def test_black_and_wrong_images():
    own = items("color", "test", "full", 2)
    assert not any(with_images(own, "black")[0].image().tobytes())
    assert with_images(own, "wrong")[0].image().tobytes() == own[1].image().tobytes()
