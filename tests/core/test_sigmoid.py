"""P-Sigmoid's rates: closed form, mean, limits."""

import math
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from vistrim.core.sigmoid import sigmoid_midpoint, sigmoid_rates

kappas = st.floats(math.log(1e-6), math.log(1e6)).map(math.exp).map(lambda kappa: min(max(kappa, 1e-6), 1e6))
depths = st.integers(2, 400)


def plain_sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


@given(kappas, depths, st.floats(0, 1))
@example(1e6, 400, 0.0)
@example(1e-6, 2, 1.0)
def test_the_mean_is_the_budget_and_nothing_rises(kappa, layers, place):
    share = 1 / layers + place * (1 - 1 / layers)
    rates = sigmoid_rates(kappa, share, layers)
    assert len(rates) == layers
    assert rates[0] == 1
    assert all(0 <= rate <= 1 for rate in rates)
    assert all(a >= b for a, b in pairwise(rates))
    assert sum(rates) / layers == pytest.approx(share, abs=1e-9)


@given(st.floats(0.05, 3), st.floats(0.02, 0.98))
def test_the_midpoint_gives_the_mean_at_layer_centers(kappa, share):
    """The closed form is exact for the integral over the depth; layer centers come close to it."""
    alpha = sigmoid_midpoint(kappa, share, 32)
    mean = sum(plain_sigmoid(kappa * (alpha - i - 0.5)) for i in range(32)) / 32
    assert mean == pytest.approx(share, abs=1.5e-3)


@given(st.floats(0.05, 3), st.floats(0.05, 0.95), st.integers(4, 60))
def test_the_midpoint_is_the_closed_form(kappa, share, layers):
    assume(kappa * layers < 200)
    numerator = math.exp(kappa * layers) - math.exp(kappa * layers * (1 - share))
    denominator = math.exp(kappa * layers * (1 - share)) - 1
    assert sigmoid_midpoint(kappa, share, layers) == pytest.approx(math.log(numerator / denominator) / kappa)


@given(st.floats(0.05, 1.5), st.floats(0.2, 0.9), st.integers(8, 40))
def test_behind_layer_0_the_rates_are_a_scaled_sigmoid(kappa, share, layers):
    rates = sigmoid_rates(kappa, share, layers)
    alpha = sigmoid_midpoint(kappa, share, layers)
    plain = [plain_sigmoid(kappa * (alpha - i - 0.5)) for i in range(1, layers)]
    factor = (share * layers - 1) / sum(plain)
    assume(factor * plain[0] <= 1)
    assert rates[1:] == pytest.approx([factor * rate for rate in plain])


def test_limits():
    assert sigmoid_rates(1e-6, 0.4, 10) == pytest.approx([1] + [3 / 9] * 9, abs=1e-5)
    assert sigmoid_rates(1e6, 0.4, 10) == pytest.approx([1] * 4 + [0] * 6)
    assert sigmoid_rates(1e6, 0.1, 10) == (1,) + (0,) * 9
    assert sigmoid_midpoint(50, 0.3, 32) == pytest.approx(0.3 * 32)
    assert sigmoid_rates(0.7, 1, 5) == (1,) * 5
    assert sigmoid_rates(1, 1, 1) == (1,)


@pytest.mark.parametrize(
    ("kappa", "share", "layers", "says"),
    [
        (0, 0.5, 8, "kappa=0"),
        (-1, 0.5, 8, "kappa=-1"),
        (math.nan, 0.5, 8, "kappa=nan"),
        (math.inf, 0.5, 8, "kappa=inf"),
        (1, 1.01, 8, "at most 1"),
        (1, math.nan, 8, "at most 1"),
        (1, 0.12, 8, r"0\.1250 of them: set mean_keep to at least that"),
        (1, 0, 8, "set mean_keep to at least that"),
    ],
)
def test_values_out_of_range_are_refused(kappa, share, layers, says):
    with pytest.raises(ValueError, match=says):
        sigmoid_rates(kappa, share, layers)
