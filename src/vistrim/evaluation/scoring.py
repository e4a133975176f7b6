"""How right an answer is."""

from collections import Counter


def score(task: str, given: str, right: str) -> float:
    """Score an answer: 1 or 0 by exact match, for a description the F1 of its object facts.

    Upper and lower case, surrounding space and a final full stop make no difference.
    """
    given, right = _plain(given), _plain(right)
    return facts_f1(given, right) if task == "description" else float(given == right)


def facts_f1(given: str, right: str) -> float:
    """F1 over object facts: (area, size), (area, colour), (area, kind) and (area, letter) of every shape."""
    given_facts, right_facts = _facts(given), _facts(right)
    common = sum((given_facts & right_facts).values())
    total = sum(given_facts.values()) + sum(right_facts.values())
    return 2 * common / total if total else 0.0


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
