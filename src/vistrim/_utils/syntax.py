"""Text with quotes and square brackets: where to cut it, and how to quote a piece of it."""

import re
from re import Pattern

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def split_outside(text: str, separator: Pattern[str]) -> list[str]:
    """Split text at every match of ``separator`` that is neither in double quotes nor in square brackets.

    Raises
    ------
    ValueError
        If a quote or bracket is not closed, or a bracket closes none.
    """
    pieces, start, at, depth = [], 0, 0, 0
    while at < len(text):
        if text[at] == '"':
            quoted = QUOTED.match(text, at)
            if quoted is None:
                raise ValueError(f"{text}: a double quote is not closed")
            at = quoted.end()
            continue
        depth += (text[at] == "[") - (text[at] == "]")
        if depth < 0:
            raise ValueError(f"{text}: a bracket is closed that was not opened")
        if depth == 0 and (found := separator.match(text, at)) is not None:
            pieces.append(text[start:at])
            start = at = found.end()
        else:
            at += 1
    if depth:
        raise ValueError(f"{text}: a square bracket is not closed")
    return [*pieces, text[start:]]


def quote(text: str) -> str:
    """Put text in double quotes; backslashes stand before quotes and backslashes in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unquote(text: str) -> str | None:
    """Take the double quotes off a text that is all in them; None: it is not."""
    quoted = QUOTED.fullmatch(text)
    return None if quoted is None else _ESCAPED.sub(r"\1", quoted[1])
