"""G-Search over a plain function: the smallest rates that suffice."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistrim.calibration.gsearch import groups, most_evaluations, search_rates


class Counted:
    """Performance that never falls where rates rise: a weighted sum of concave gains, and thresholds."""

    def __init__(self, weights, needed):
        self.weights, self.needed, self.asked = weights, needed, []

    def __call__(self, rates):
        self.asked.append(rates)
        return self.value(rates)

    def value(self, rates):
        smooth = sum(w * r**0.5 for w, r in zip(self.weights, rates, strict=True))
        return smooth + sum(r >= need for r, need in zip(rates, self.needed, strict=True))


def performances(layers):
    return st.builds(
        Counted,
        st.lists(st.floats(0, 1), min_size=layers, max_size=layers),
        st.lists(st.floats(0, 1), min_size=layers, max_size=layers),
    )


def suffices(performance, rates, layer, full, error):
    """Whether rates up to ``layer``, the last of which caps the rest, lose no more than is allowed there."""
    layers = len(rates)
    capped = rates[: layer + 1] + (rates[layer],) * (layers - layer - 1)
    return performance.value(capped) >= full * (1 - error * layer / layers)


@settings(max_examples=50)
@given(performances(5), st.floats(0, 0.5), st.sampled_from([1, 2, 3, 4, 5]))
def test_equals_brute_force(performance, error, steps):
    """Of all rates that suffice at every layer, those that are smallest at the first layer, then at the second, ..."""
    full = performance.value((1.0,) * 5)
    grid = [k / steps for k in range(1, steps + 1)]
    every = [(1.0, *rates) for rates in product(grid, repeat=4) if list(rates) == sorted(rates, reverse=True)]
    allowed = [r for r in every if all(suffices(performance, r, layer, full, error) for layer in range(1, 5))]
    found = search_rates(performance, 5, full, error, steps=steps)
    assert found.rates == min(allowed)
    assert found.performance == performance.value(found.rates)
    assert len(performance.asked) == len(set(performance.asked)) <= most_evaluations(5, 1, steps)


@given(performances(9), st.floats(0, 0.9), st.integers(1, 10))
def test_every_group_has_the_smallest_rate_that_suffices(performance, error, group):
    full = performance.value((1.0,) * 9)
    found = search_rates(performance, 9, full, error, group)
    rates = found.rates
    assert rates[0] == 1
    assert list(rates) == sorted(rates, reverse=True)
    assert all(32 * rate == round(32 * rate) >= 1 for rate in rates)
    for first, last in groups(9, group):
        assert len(set(rates[first : last + 1])) == 1
        least = full * (1 - error * last / 9)
        assert performance.value(rates[:first] + (rates[first],) * (9 - first)) >= least
        smaller = rates[first] - 1 / 32
        assert smaller == 0 or performance.value(rates[:first] + (smaller,) * (9 - first)) < least
    assert len(performance.asked) <= most_evaluations(9, group)


@given(st.integers(2, 60), st.integers(1, 70))
def test_groups_cover_every_layer_but_the_first(layers, size):
    covered = [layer for first, last in groups(layers, size) for layer in range(first, last + 1)]
    assert covered == list(range(1, layers))
    assert all(last - first + 1 <= size for first, last in groups(layers, size))


@given(st.lists(st.floats(0, 1), min_size=25, max_size=25), st.floats(0, 0.5))
def test_the_result_suffices_even_if_performance_is_noise(noise, error):
    asked = []

    def evaluate(rates):
        asked.append((rates, noise[len(asked)]))
        return asked[-1][1]

    found = search_rates(evaluate, 6, 0.7, error)
    assert len(asked) <= most_evaluations(6, 1) == len(noise)
    if found.rates == (1.0,) * 6:
        assert found.performance == 0.7
    else:
        assert (found.rates, found.performance) in asked
        assert found.performance >= 0.7 * (1 - error)


def test_the_best_so_far_is_reported_after_every_evaluation():
    told, performance = [], Counted((1,) * 4, (0.5,) * 4)
    found = search_rates(performance, 4, performance.value((1.0,) * 4), 0.2, advance=told.append)
    assert len(told) == len(performance.asked)
    assert told[-1] == found


def test_number_of_evaluations():
    assert most_evaluations(12, 2) == 6 * 5
    assert most_evaluations(32, 1) == 31 * 5
    assert most_evaluations(12, 99, steps=1) == 0


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"layers": 1}, "at least 2"),
        ({"full": 0.0}, "performance is 0"),
        ({"error": 1.0}, "error=1.0"),
        ({"error": -0.1}, "error=-0.1"),
        ({"group": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_values_out_of_range_are_refused(changed, says):
    with pytest.raises(ValueError, match=says):
        search_rates(lambda _: pytest.fail("evaluated"), **{"layers": 4, "full": 1.0} | changed)
