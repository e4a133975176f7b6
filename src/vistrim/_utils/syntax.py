"""Splitting and quoting of text with double quotes and square brackets."""

import re
from re import Pattern

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def split_outside(text: str, separator: Pattern[str]) -> list[str]:
    """Split text at every match of ``separator`` that is neither in double quotes nor in square brackets.

    Raises
    ------
    ValueError
        If a quote or bracket is not closed, or a closing bracket has no opening one.
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
    """Put text in double quotes, and escape quotes and backslashes in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unquote(text: str) -> str | None:
    """Remove the double quotes around a text. None: it is not fully quoted."""
    quoted = QUOTED.fullmatch(text)
    return None if quoted is None else _ESCAPED.sub(r"\1", quoted[1])
