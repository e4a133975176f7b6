"""P-Sigmoid: keep rates that fall with depth like a sigmoid, and have a given mean."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

_FLATTEST, _STEEPEST = 1e-6, 1e6
"""Steepness beyond which a sigmoid over some hundred layers is flat or a step, and floating point ends."""
_TOLERANCE = 1e-9
"""Layers' worth of tokens that rounding may lose."""


def sigmoid_midpoint(kappa: float, share: float, layers: int) -> float:
    r"""Depth :math:`\alpha` at which a sigmoid of keep rates is 1/2 if its mean over the depth is ``share``.

    .. math:: \alpha = \frac{1}{\kappa} \ln \frac{e^{\kappa L} - e^{\kappa L (1 - b)}}{e^{\kappa L (1 - b)} - 1}

    solves :math:`\frac{1}{L} \int_0^L \sigma(\kappa (\alpha - x)) dx = b`. It may lie outside of the decoder.

    Parameters
    ----------
    kappa : float
        Steepness :math:`\kappa > 0`, per layer.
    share : float
        :math:`b`, between 0 and 1 exclusive.
    layers : int
        :math:`L`.

    Notes
    -----
    Written as :math:`bL + [\ln(1 - e^{-\kappa L b}) - \ln(1 - e^{-\kappa L (1 - b)})] / \kappa`, which neither
    overflows nor cancels. In the limits it is :math:`bL` (steep) and :math:`\ln(b / (1 - b)) / \kappa` (flat).
    """
    depth = kappa * layers
    return (
        share * layers + (math.log(-math.expm1(-depth * share)) - math.log(-math.expm1(-depth * (1 - share)))) / kappa
    )


def sigmoid_rates(kappa: float, share: float, layers: int) -> tuple[float, ...]:
    r"""Keep rates that fall with depth like a sigmoid, whose mean over all layers is ``share``.

    Layer 0 keeps everything, :math:`r_0 = 1`; the others are :math:`r_l = c \, \sigma(\kappa (\alpha - l - 1/2))` with
    the `sigmoid_midpoint` :math:`\alpha` and the factor :math:`c` that restores the mean; where the product exceeds 1,
    the rate is 1 and :math:`c` is larger for the rest.

    Parameters
    ----------
    kappa : float
        Steepness per layer, from 1e-6 to 1e6. Near 0 all layers from 1 on keep the same; a very large one keeps
        (nearly) everything in the first ``share * layers`` layers and nothing from there on.
    share : float
        Mean keep rate, from ``1 / layers`` to 1.
    layers : int
        Number of decoder layers.

    Returns
    -------
    tuple of float
        One rate per layer, in [0, 1], never rising.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.00556 (P-Sigmoid), whose code and exact parametrisation were not available: the sigmoid is the
    paper's, the midpoint from the mean and the way layer 0 is kept whole are this project's.
    """
    if not _FLATTEST <= kappa <= _STEEPEST:
        raise ValueError(f"kappa={kappa}: must be above 0; from {_FLATTEST:g} (flat) to {_STEEPEST:g} (a step)")
    if not share <= 1:
        raise ValueError(f"budget={share}: is a share of the visual tokens, at most 1")
    rest = share * layers - 1
    if not rest > -_TOLERANCE:
        raise ValueError(
            f"budget={share}: layer 0 of {layers} processes all visual tokens, which alone is {1 / layers:.4f} of them "
            "on average: give at least that"
        )
    if share == 1:
        return (1.0,) * layers
    midpoint = sigmoid_midpoint(kappa, share, layers)
    logs = [_log_sigmoid(kappa * (midpoint - (layer + 0.5))) for layer in range(1, layers)]
    # Rounding may let neighbours of a flat sigmoid rise by the last digit.
    return tuple(accumulate((1.0, *_scaled(logs, rest)), min))


def share_for_flops(kappa: float, flops: float, cost: Callable[[tuple[float, ...]], float], layers: int) -> float:
    """Largest mean keep rate at which a sigmoid costs no more than ``flops``, by bisection.

    Parameters
    ----------
    kappa : float
        Steepness per layer.
    flops : float
        What may be spent.
    cost : callable
        FLOPs of keep rates; must not fall where rates rise.
    layers : int
        Number of decoder layers.

    Returns
    -------
    float
        The ``share`` of `sigmoid_rates`.

    Raises
    ------
    ValueError
        If even visual tokens in layer 0 alone cost more.
    """
    low, high = 1 / layers, 1.0
    least, most = (cost(sigmoid_rates(kappa, share, layers)) for share in (low, high))
    if flops < least:
        raise ValueError(
            f"text, and visual tokens in layer 0 alone, take {least / most:.4f} of the FLOPs, "
            f"and the budget is {flops / most:.4f} of them: give more"
        )
    if flops >= most:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        fits = cost(sigmoid_rates(kappa, middle, layers)) <= flops
        low, high = (middle, high) if fits else (low, middle)
    return low


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def _scaled(logs: Sequence[float], total: float) -> list[float]:
    """``min(1, c * exp(log))`` for falling logarithms, with the ``c`` for which they sum up to ``total``."""
    for full in range(len(logs)):
        left, rest = total - full, logs[full:]
        if left <= _TOLERANCE:
            return [1.0] * full + [0.0] * len(rest)
        # Relative to the largest, so that no sum underflows.
        log_c = math.log(left) - math.log(sum(math.exp(log - rest[0]) for log in rest)) - rest[0]
        if log_c + rest[0] <= _TOLERANCE:
            return [1.0] * full + [min(1.0, math.exp(log + log_c)) for log in rest]
    return [1.0] * len(logs)
