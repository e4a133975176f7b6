"""Scores of an answer against a correct one, by name."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from vistrim.evaluation.items import exact_match, plain

TOLERANCE = 0.05
"""Relative error up to which a number is correct, as in ChartQA."""
LEAST_SIMILARITY = 0.5
"""Similarity below which ANLS is 0, as in DocVQA."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# "A dog" is a text, not the letter.
_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])(?=[.,:)]|$)")
_ANNOUNCED = re.compile(r"\b(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?([A-Z])\b", re.IGNORECASE)


def number(given: str, right: str) -> float:
    """1 for a number that differs by at most 5 % from the correct one; other texts are compared by `exact_match`."""
    found, wanted = _value(given), _value(right)
    if found is None or not wanted:
        return exact_match(given, right)
    return float(abs(found - wanted) <= TOLERANCE * abs(wanted))


def anls(given: str, right: str) -> float:
    """Normalized Levenshtein similarity, or 0 if it is below a half."""
    a, b = (" ".join(text.lower().split()) for text in (given, right))
    similarity = 1 - _distance(a, b) / max(len(a), len(b), 1)
    return similarity if similarity > LEAST_SIMILARITY else 0.0


def f1(given: str, right: str) -> float:
    """F1 of the words, without punctuation and articles."""
    a, b = _words(given), _words(right)
    common = (a & b).total()
    return 2 * common / (a.total() + b.total()) if common else float(not (a or b))


SCORERS: dict[str, Callable[[str, str], float]] = {
    "exact": exact_match,
    "number": number,
    "anls": anls,
    "f1": f1,
    "choice": exact_match,
}
"""Scores in [0, 1] by name. For "choice", the letter is first found in the answer, see `chosen_letter`."""
NONE = "none"
"""Name for questions without correct answers, whose answers are only compared with those of the untouched model."""


def chosen_letter(given: str, choices: Sequence[str]) -> str:
    """Find the letter of the choice that an answer names: by its letter or by its text.

    Returns
    -------
    str
        The letter, or the answer itself if it names no choice.
    """
    letters = string.ascii_uppercase[: len(choices)]
    for letter, choice in zip(letters, choices, strict=True):
        if plain(given) == plain(choice):
            return letter
    found = _LETTER.match(given.strip()) or _ANNOUNCED.search(given)
    letter = next(filter(None, found.groups())).upper() if found else ""
    return letter if letter and letter in letters else given


def _value(text: str) -> float | None:
    number = plain(text).replace(",", "").removeprefix("$")
    try:
        return float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        return None


def _words(text: str) -> Counter[str]:
    kept = text.lower().translate(str.maketrans("", "", string.punctuation))
    return Counter(_ARTICLES.sub(" ", kept).split())


def _distance(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1]
