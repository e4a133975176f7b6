"""Fitting the scaling law of visual tokens to measurements."""

from collections.abc import Sequence

import numpy as np

from studies.scaling_law.law import POINTS, ScalingLaw

Points = Sequence[tuple[float, float, float]]


def squared_error(law: ScalingLaw, points: Points = POINTS) -> float:
    """Sum of squared errors of a law."""
    return sum((law.error(parameters, tokens) - error) ** 2 for parameters, tokens, error in points)


def fit(points: Points = POINTS, floor: float = 0.0) -> ScalingLaw:
    r"""Least squares of A, :math:`\alpha` and :math:`\beta` at a given D.

    Parameters
    ----------
    points : sequence of (parameters, visual tokens, error)
        Parameters in billions; errors above ``floor``.
    floor : float
        D.

    Notes
    -----
    Gauss-Newton from the fit to the logarithms, to which the law is linear.
    """
    parameters, tokens, errors = np.array(points, dtype=float).T
    columns = np.stack([np.ones_like(errors), -np.log(parameters), -np.log(tokens)], 1)
    found = np.linalg.lstsq(columns, np.log(errors - floor), rcond=None)[0]
    for _ in range(20):
        reducible = np.exp(columns @ found)
        step = np.linalg.lstsq(columns * reducible[:, None], errors - floor - reducible, rcond=None)[0]
        found = found + step
    log_amplitude, alpha, beta = found.tolist()
    return ScalingLaw(alpha=alpha, beta=beta, amplitude=float(np.exp(log_amplitude)), floor=floor)


def fit_grid(points: Points = POINTS) -> ScalingLaw:
    r"""The best law on the grid of the authors' code, all of it.

    A in [0.2, 0.7] (50 values), :math:`\alpha` in [0, 0.2] (100), :math:`\beta` in [0, 0.05] (100), D in [0, 0.3] (10).
    """
    parameters, tokens, errors = np.array(points, dtype=float).T
    amplitudes, floors = np.linspace(0.2, 0.7, 50)[:, None], np.linspace(0, 0.3, 10)[None, :]
    best, law = np.inf, None
    for alpha in np.linspace(0, 0.2, 100):
        for beta in np.linspace(0, 0.05, 100):
            x = parameters**-alpha * tokens**-beta
            # The sum of squares over all points, for every A and D at once.
            squares = (
                errors @ errors
                + amplitudes**2 * (x @ x)
                + floors**2 * len(x)
                + 2 * (amplitudes * floors * x.sum() - amplitudes * (x @ errors) - floors * errors.sum())
            )
            if squares.min() < best:
                best = squares.min()
                a, d = np.unravel_index(squares.argmin(), squares.shape)
                law = ScalingLaw(float(alpha), float(beta), float(amplitudes[a, 0]), float(floors[0, d]))
    assert law is not None
    return law
