"""Labels of runs: for the untouched model, and short labels of methods where parameters do not fit."""

import re
from collections import Counter
from collections.abc import Sequence

from vistrim._utils.syntax import split_outside

_PLUS = re.compile(r"\+")

UNTOUCHED = "untouched"
"""Label of the untouched model, in place of the notation of a method."""


def without_parameters(label: str) -> str:
    """Shorten ``fastervlm:keep=0.5+vta`` to ``fastervlm+vta``. Original positions are still mentioned."""
    try:
        parts = split_outside(label, _PLUS)
    # Labels are not always notations.
    except ValueError:
        parts = [label]
    name = "+".join(part.split(":")[0] for part in parts)
    return f"{name}, original positions" if "positions=original" in label else name


def short_names(labels: Sequence[str], longest: int) -> dict[str, str]:
    """Create a unique name for each label, without parameters if it is longer than ``longest`` characters.

    Equal names are numbered in the order of the labels.
    """
    wanted = {label: label if len(label) <= longest else without_parameters(label) for label in labels}
    several = {name for name, count in Counter(wanted.values()).items() if count > 1}
    seen: Counter[str] = Counter()
    names = {}
    for label, name in wanted.items():
        seen[name] += 1
        # A short label is not renamed if a longer one was shortened to it.
        names[label] = f"{name} #{seen[name]}" if name in several and name != label else name
    return names
