"""Every run has each pair of values of a test's parameters."""

from itertools import combinations, product

import pytest

from tests.covering import chosen


@pytest.mark.parametrize(("at_once", "sizes", "most"), [(2, (6, 2, 3), 18), (2, (2, 2, 2, 2), 6), (1, (5, 2, 3), 5)])
def test_everything_is_covered_by_few(at_once, sizes, most):
    every = [dict(zip("abcd", place, strict=False)) for place in product(*map(range, sizes))]
    found = [every[number] for number in chosen(every, at_once)]
    assert len(found) <= most
    for names in combinations("abcd"[: len(sizes)], at_once):
        assert {tuple(one[n] for n in names) for one in found} == {tuple(one[n] for n in names) for one in every}


def test_what_is_left_of_a_product_is_covered():
    every = [{"a": a, "b": b} for a, b in product(range(3), range(3)) if a != b]
    assert chosen(every, 2) == set(range(6))
    assert len(chosen(every, 1)) <= 4


def test_values_are_spread():
    every = [{"method": method, "kernel": kernel} for method, kernel in product(range(6), range(2))]
    found = [every[number] for number in chosen(every, 1)]
    assert sorted(one["method"] for one in found) == list(range(6))
    assert sum(one["kernel"] for one in found) == 3
