"""G-Search: layer by layer, the smallest keep rate that still answers well enough."""

from collections.abc import Callable
from dataclasses import dataclass

STEPS = 32
"""Rates are multiples of one part in so many."""

Rates = tuple[float, ...]


@dataclass(frozen=True)
class RateSearch:
    """What G-Search found.

    Attributes
    ----------
    rates : tuple of float
        One for each layer.
    performance : float
        With these rates.
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

    As a token that is gone does not come back, a rate caps those of all deeper layers while it is tried. The error that
    is allowed grows with depth, so that no layer uses up what the next ones need.

    Parameters
    ----------
    evaluate : callable
        Performance of keep rates, one for each layer; called at most once with the same ones.
    layers : int
        :math:`L`, at least 2.
    full : float
        Performance of the untouched model, above 0.
    error : float
        :math:`\varepsilon` in [0, 1): share of it that may be lost in all.
    group : int
        Neighbouring layers that get the same rate: the search takes so many times less. The allowed error of a group is
        that of its last layer.
    steps : int
        Rates are multiples of ``1 / steps``.
    advance : callable
        Told after each evaluation the best that is known to suffice.

    Returns
    -------
    RateSearch
        What was found last to suffice; at worst rates of 1, with ``full``.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.00556 (G-Search), which searches each rate with Bayesian optimisation of a mixture of performance
    and efficiency; mixture, number of trials, grid and calibration set were not available. Here performance is a
    condition, and each rate is found by bisection, which needs ``log2(steps)`` evaluations and is exact where a higher
    rate never performs worse. Where it does, what is found still suffices, but need not be the smallest.
    """
    if layers < 2:
        raise ValueError(f"layers={layers}: must be at least 2, as layer 0 keeps everything")
    if not full > 0:
        raise ValueError("the untouched model's performance is 0: nothing can be lost, so nothing can be searched")
    if not 0 <= error < 1:
        raise ValueError(f"error={error}: must be a share of the performance, from 0 to below 1")
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
    """First and last layer of each group of ``size`` neighbours, from layer 1 on; the last one may be smaller."""
    return [(first, min(first + size, layers) - 1) for first in range(1, layers, size)]


def most_evaluations(layers: int, group: int, steps: int = STEPS) -> int:
    """Evaluations that a search takes at most."""
    return len(groups(layers, group)) * (steps - 1).bit_length()
