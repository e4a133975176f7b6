"""Labels of runs: of the untouched model, and shorter ones of methods, where there is no room for all parameters."""

import re
from collections import Counter
from collections.abc import Sequence

from vistrim._utils.syntax import split_outside

_PLUS = re.compile(r"\+")

UNTOUCHED = "untouched"
"""Stands where a method's notation stands otherwise."""


def without_parameters(label: str) -> str:
    """``fastervlm+vta`` for ``fastervlm:keep=0.5+vta``; that tokens keep their positions is still said."""
    try:
        parts = split_outside(label, _PLUS)
    # A label need not be a notation.
    except ValueError:
        parts = [label]
    name = "+".join(part.split(":")[0] for part in parts)
    return f"{name}, original positions" if "positions=original" in label else name


def short_names(labels: Sequence[str], longest: int) -> dict[str, str]:
    """A name of its own for each label: itself, or without parameters where it is longer than ``longest`` characters.

    Names that would be the same are numbered in the order of the labels.
    """
    wanted = {label: label if len(label) <= longest else without_parameters(label) for label in labels}
    several = {name for name, count in Counter(wanted.values()).items() if count > 1}
    seen: Counter[str] = Counter()
    names = {}
    for label, name in wanted.items():
        seen[name] += 1
        # A label that is short enough is not renamed because a longer one was shortened to it.
        names[label] = f"{name} #{seen[name]}" if name in several and name != label else name
    return names
