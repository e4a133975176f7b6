"""Tests with many combinations of parameters: every run has some of them, ``make test-slow`` has the others.

What goes wrong where two things come together, a method and a kernel or a kernel and a batch, is found in every run.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from itertools import combinations
from typing import Any

import pytest

PAIRS = 2

covering = pytest.mark.covering
"""Marks a test of which every run has so many combinations that each value of a parameter is in one with each value of
each other; ``covering(1)``: that each value of a parameter is in one."""


def leave_others_to_the_slow_run(items: Iterable[pytest.Item]) -> None:
    """Mark as slow which combinations of the tests marked `covering` not every run needs."""
    tests: dict[Hashable, list[Any]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("covering") and not item.get_closest_marker("slow"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for found in tests.values():
        (at_once,) = found[0].get_closest_marker("covering").args or (PAIRS,)
        given = [{name: _key(value) for name, value in item.callspec.params.items()} for item in found]
        needed = chosen(given, at_once)
        for number, item in enumerate(found):
            if number not in needed:
                item.add_marker(pytest.mark.slow)


def _key(value: Any) -> Hashable:
    """The same for what is equal and of one type, or is one object."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value


def chosen(combinations_of: list[Mapping[str, Hashable]], at_once: int) -> set[int]:
    """Numbers of few combinations in which all values are found that so many parameters have at once in any.

    Of combinations that add as much, one with values that are in few so far.
    """
    parts = [set(combinations(one.items(), min(at_once, len(one)))) for one in combinations_of]
    missing, found = set().union(*parts), set()
    used: Counter[tuple[str, Hashable]] = Counter()

    def gain(number: int) -> tuple[int, int]:
        return len(missing & parts[number]), -sum(used[value] for value in combinations_of[number].items())

    while missing:
        best = max(range(len(parts)), key=gain)
        found.add(best)
        missing -= parts[best]
        used.update(combinations_of[best].items())
    return found
