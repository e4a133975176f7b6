"""G-Search: the smallest keep rate of each layer that retains enough performance."""

from collections.abc import Callable
from dataclasses import dataclass

STEPS = 32
"""Rates are multiples of ``1 / STEPS``."""

Rates = tuple[float, ...]


@dataclass(frozen=True)
class RateSearch:
    """Result of G-Search.

    Attributes
    ----------
    rates : tuple of float
        Keep rate of each layer.
    performance : float
        Performance with these rates.
    """

    rates: Rates
    performance: float


def search_rates(
    evaluate: Callable[[Rates], float],
    layers: int,
    full: float,
    error: float = 0.005,
    group: int = 1,
    steps: int = STEPS,
    advance: Callable[[RateSearch], None] = lambda found: None,
) -> RateSearch:
    r"""Find the smallest keep rates that do not lose more than a given share of the performance.

    From layer 1 to the last: the rate :math:`r_l` becomes the smallest multiple of ``1 / steps`` up to :math:`r_{l-1}`
    with which

    .. math:: Perf(r_1, \dots, r_l, r_l, \dots, r_l) \ge (1 - \varepsilon l / L) \, Perf_{full}.

    Removed tokens are not restored, so a rate that is tried is an upper bound for all deeper layers. The allowed error
    grows with depth, which leaves a part of it for each deeper layer.

    Parameters
    ----------
    evaluate : callable
        Returns the performance of keep rates, one for each layer; called at most once with the same rates.
    layers : int
        :math:`L`, at least 2.
    full : float
        Performance of the untouched model, above 0.
    error : float
        :math:`\varepsilon` in [0, 1): share of the performance that may be lost in total.
    group : int
        Number of adjacent layers that get the same rate, which shortens the search by this factor. The allowed error of
        a group is that of its last layer.
    steps : int
        Rates are multiples of ``1 / steps``.
    advance : callable
        Called after each evaluation with the smallest sufficient rates so far.

    Returns
    -------
    RateSearch
        The smallest sufficient rates found; in the worst case, rates of 1 with performance ``full``.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.00556 (G-Search), which searches each rate by Bayesian optimization of a mixture of performance
    and efficiency; the mixture, number of trials, grid and calibration set are not available. Here performance is a
    constraint, and each rate is found by bisection, which needs ``log2(steps)`` evaluations and is exact if a higher
    rate never performs worse. Otherwise, the rates found still satisfy the constraint, but may not be the smallest.
    """
    if layers < 2:
        raise ValueError(f"layers={layers}: must be at least 2, as layer 0 keeps all tokens")
    if not full > 0:
        raise ValueError("the untouched model's performance is 0: use questions that it can answer")
    if not 0 <= error < 1:
        raise ValueError(f"error={error}: must be a share of the performance in [0, 1)")
    if group < 1 or steps < 1:
        raise ValueError(f"group={group}, steps={steps}: must be at least 1")
    best = RateSearch((1.0,) * layers, full)
    for first, last in groups(layers, group):
        least = full * (1 - error * last / layers)
        too_few, enough = 0, round(best.rates[first] * steps)
        while enough - too_few > 1:
            tried = (too_few + enough) // 2
            rates = best.rates[:first] + (tried / steps,) * (layers - first)
            performance = evaluate(rates)
            if performance >= least:
                enough, best = tried, RateSearch(rates, performance)
            else:
                too_few = tried
            advance(best)
    return best


def groups(layers: int, size: int) -> list[tuple[int, int]]:
    """First and last layer of each group of ``size`` adjacent layers, from layer 1 on; the last one may be smaller."""
    return [(first, min(first + size, layers) - 1) for first in range(1, layers, size)]


def most_evaluations(layers: int, group: int, steps: int = STEPS) -> int:
    """Largest number of evaluations of a search."""
    return len(groups(layers, group)) * (steps - 1).bit_length()
