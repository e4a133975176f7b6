"""How right an answer is."""


def exact_match(given: str, right: str) -> float:
    """1 for the right answer, else 0; what `plain` takes away makes no difference."""
    return float(plain(given) == plain(right))


def plain(text: str) -> str:
    """The text in lower case, without surrounding space and a final full stop."""
    return text.strip().removesuffix(".").strip().lower()
