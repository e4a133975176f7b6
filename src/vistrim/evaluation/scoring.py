"""How right an answer is."""

import re
from collections import Counter

#: Words that a sentence needs and that tell nothing.
_EMPTY = frozenset(["a", "an", "and", "are", "at", "in", "is", "it", "on", "shape", "shapes", "the", "there", "with"])


def score(task: str, given: str, right: str, prompt: str = "") -> float:
    """Score an answer: 1 or 0 by exact match, for a description or a sentence the F1 of its facts.

    Upper and lower case, surrounding space and a final full stop make no difference.

    Parameters
    ----------
    task : str
        "description" has facts about objects; one that ends in "-sentence" has what its words tell beyond the prompt.
    given, right : str
        What was answered, and what would be right.
    prompt : str
        The question; of a sentence only.
    """
    given, right = _plain(given), _plain(right)
    if task == "description":
        return facts_f1(given, right)
    if task.endswith("-sentence"):
        return _f1(_told(given, prompt), _told(right, prompt))
    return float(given == right)


def facts_f1(given: str, right: str) -> float:
    """F1 over object facts: (area, size), (area, colour), (area, kind) and (area, letter) of every shape."""
    return _f1(_facts(given), _facts(right))


def _f1(given: Counter, right: Counter) -> float:
    total = given.total() + right.total()
    return 2 * (given & right).total() / total if total else 0.0


def _told(sentence: str, prompt: str) -> Counter[str]:
    """Words that tell what the prompt does not."""
    known = {*_words(prompt), *_EMPTY}
    return Counter(word for word in _words(sentence) if word not in known)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").strip().lower()


def _facts(text: str) -> Counter[tuple[str, str]]:
    """Facts of a description: each shape's area with each of its attribute words."""
    facts: Counter[tuple[str, str]] = Counter()
    for clause in text.split(" and "):
        words = clause.split()
        # "at the ROW COLUMN a SIZE COLOR KIND with the letter LETTER"
        if len(words) == 12:
            area = f"{words[2]} {words[3]}"
            facts.update((area, word) for word in (*words[5:8], words[11]))
    return facts
