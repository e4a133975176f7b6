import pytest

from vistrim.evaluation.scoring import facts_f1, score

CLAUSE = "at the top left a small red star with the letter k"
OTHER = "at the top right a large blue cross with the letter h"


@pytest.mark.parametrize(
    ("given", "right", "expected"),
    [(" red ", "red", 1), ("Red.", "red", 1), ("blue", "red", 0), ("", "red", 0), ("red star", "red", 0)],
)
def test_short_answers_match_exactly_or_not(given, right, expected):
    assert score("color", given, right) == expected


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
def test_sentences_are_scored_by_what_they_add_to_the_question(prompt, given, right, expected):
    prompt = f"{prompt} Answer in a sentence."
    assert score("color-sentence", given, right, prompt) == pytest.approx(expected)


def test_descriptions_are_scored_by_their_facts():
    both = f"{CLAUSE} and {OTHER}"
    assert score("description", both, both) == 1
    assert score("description", f"{OTHER} and {CLAUSE}.", both) == 1
    assert facts_f1(CLAUSE, both) == pytest.approx(2 / 3)
    assert facts_f1(CLAUSE.replace("red", "blue"), CLAUSE) == pytest.approx(3 / 4)
    assert facts_f1(CLAUSE.replace("left", "right"), CLAUSE) == 0
    assert facts_f1(f"{CLAUSE} and {CLAUSE}", CLAUSE) == pytest.approx(2 / 3)
    assert facts_f1("no no no", CLAUSE) == 0
    assert facts_f1("", "") == 0
