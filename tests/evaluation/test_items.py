import pytest

from vistrim.evaluation.items import exact_match


@pytest.mark.parametrize(
    ("given", "right", "expected"),
    [(" red ", "red", 1), ("Red.", "red", 1), ("blue", "red", 0), ("", "red", 0), ("red star", "red", 0)],
)
def test_short_answers_match_exactly_or_not(given, right, expected):
    assert exact_match(given, right) == expected
