"""P-Sigmoid: keep rates that fall with depth like a sigmoid and have a given mean."""

import math
from collections.abc import Sequence
from itertools import accumulate

_FLATTEST, _STEEPEST = 1e-6, 1e6
"""Range of the steepness. Beyond it, a sigmoid over a few hundred layers is numerically flat or a step."""
_TOLERANCE = 1e-9
"""Rounding error allowed in a sum of keep rates."""


def sigmoid_midpoint(kappa: float, share: float, layers: int) -> float:
    r"""Compute the depth :math:`\alpha` at which a sigmoid of keep rates with mean ``share`` equals 1/2.

    .. math:: \alpha = \frac{1}{\kappa} \ln \frac{e^{\kappa L} - e^{\kappa L (1 - b)}}{e^{\kappa L (1 - b)} - 1}

    solves :math:`\frac{1}{L} \int_0^L \sigma(\kappa (\alpha - x)) dx = b`. It may lie outside the decoder.

    Parameters
    ----------
    kappa : float
        Steepness :math:`\kappa > 0`, per layer.
    share : float
        Mean keep rate :math:`b`, between 0 and 1 exclusive.
    layers : int
        Number of decoder layers :math:`L`.

    Returns
    -------
    float
        The depth :math:`\alpha`, in layers.

    Notes
    -----
    Computed as :math:`bL + [\ln(1 - e^{-\kappa L b}) - \ln(1 - e^{-\kappa L (1 - b)})] / \kappa`, which neither
    overflows nor cancels. In the limits it is :math:`bL` (steep) and :math:`\ln(b / (1 - b)) / \kappa` (flat).
    """
    depth = kappa * layers
    return (
        share * layers + (math.log(-math.expm1(-depth * share)) - math.log(-math.expm1(-depth * (1 - share)))) / kappa
    )


def sigmoid_rates(kappa: float, share: float, layers: int) -> tuple[float, ...]:
    r"""Keep rates that fall with depth like a sigmoid, whose mean over all layers is ``share``.

    Layer 0 keeps everything, :math:`r_0 = 1`. The other rates are :math:`r_l = c \, \sigma(\kappa (\alpha - l - 1/2))`
    with the `sigmoid_midpoint` :math:`\alpha` and the factor :math:`c` that restores the mean. Where the product
    exceeds 1, the rate is 1, and :math:`c` is larger for the others.

    Parameters
    ----------
    kappa : float
        Steepness per layer, from 1e-6 to 1e6. Near 0, all layers from 1 on have the same rate. A very large value keeps
        nearly everything in the first ``share * layers`` layers and nothing after them.
    share : float
        Mean keep rate, from ``1 / layers`` to 1.
    layers : int
        Number of decoder layers.

    Returns
    -------
    tuple of float
        One rate per layer, in [0, 1], non-increasing.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.00556 (P-Sigmoid). Its code and exact parametrization were not available. The sigmoid is from the
    paper. The midpoint from the mean and the treatment of layer 0 are choices of this project.
    """
    if not _FLATTEST <= kappa <= _STEEPEST:
        raise ValueError(f"kappa={kappa}: must be above 0, from {_FLATTEST:g} (flat) to {_STEEPEST:g} (a step)")
    if not share <= 1:
        raise ValueError(f"mean_keep={share}: must be a share of the visual tokens, at most 1")
    rest = share * layers - 1
    if not rest > -_TOLERANCE:
        raise ValueError(
            f"mean_keep={share}: layer 0 of {layers} processes all visual tokens, which alone averages "
            f"{1 / layers:.4f} of them: set mean_keep to at least that"
        )
    if share == 1:
        return (1.0,) * layers
    midpoint = sigmoid_midpoint(kappa, share, layers)
    logs = [_log_sigmoid(kappa * (midpoint - (layer + 0.5))) for layer in range(1, layers)]
    # Rounding may make a flat sigmoid rise in the last digit.
    return tuple(accumulate((1.0, *_scaled(logs, rest)), min))


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def _scaled(logs: Sequence[float], total: float) -> list[float]:
    """Scale descending logarithms to a sum.

    Returns
    -------
    list of float
        ``min(1, c * exp(log))``, with ``c`` such that the sum is ``total``.
    """
    for full in range(len(logs)):
        left, rest = total - full, logs[full:]
        if left <= _TOLERANCE:
            return [1.0] * full + [0.0] * len(rest)
        # Relative to the largest, to avoid underflow of the sum.
        log_c = math.log(left) - math.log(sum(math.exp(log - rest[0]) for log in rest)) - rest[0]
        if log_c + rest[0] <= _TOLERANCE:
            return [1.0] * full + [min(1.0, math.exp(log + log_c)) for log in rest]
    return [1.0] * len(logs)
