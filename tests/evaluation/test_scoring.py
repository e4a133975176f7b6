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
