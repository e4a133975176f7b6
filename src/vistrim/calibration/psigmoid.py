"""The steepness of P-Sigmoid with the best performance, by Bayesian optimization."""

from collections.abc import Callable
from dataclasses import dataclass

from vistrim.errors import MissingPackageError

MISSING = "P-Sigmoid is tuned with optuna: run `pip install 'vistrim[calibration]'`"
STARTUP_TRIALS = 6
"""Random trials before the estimator is fitted."""


@dataclass(frozen=True)
class KappaSearch:
    """The best steepness so far.

    Attributes
    ----------
    kappa : float
        Steepness per layer.
    performance : float
        Performance with it.
    """

    kappa: float
    performance: float


def kappa_range(layers: int) -> tuple[float, float]:
    """Range from nearly flat to a step: 0.05 to 3 for 32 layers, scaled with depth to keep the same shapes."""
    return 0.05 * 32 / layers, 3 * 32 / layers


def search_kappa(
    evaluate: Callable[[float], float],
    layers: int,
    trials: int = 20,
    seed: int = 0,
    advance: Callable[[KappaSearch], None] = lambda found: None,
) -> KappaSearch:
    """Find the steepness with the best performance, by a tree-structured Parzen estimator on its logarithm.

    Parameters
    ----------
    evaluate : callable
        Returns the performance of a steepness.
    layers : int
        Number of decoder layers, which sets the `kappa_range`.
    trials : int
        Evaluations, at least 1.
    seed : int
        The same seed proposes the same steepness as long as performances are equal. With an ``evaluate`` that caches
        its results, an interrupted search therefore resumes, and more trials extend an earlier search.
    advance : callable
        Called after each trial with the best result so far.

    Returns
    -------
    KappaSearch
        The best result; the first one if several are equal.

    Raises
    ------
    ValueError
        If ``trials`` is below 1.
    MissingPackageError
        If optuna is not installed.

    Notes
    -----
    Source: arXiv 2412.00556 (P-Sigmoid), which tunes the steepness by Bayesian optimization; its optimizer, range and
    number of trials are not available.
    """
    if trials < 1:
        raise ValueError(f"trials={trials}: must be at least 1")
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError(MISSING) from error
    best = None
    spoken = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        low, high = kappa_range(layers)
        for _ in range(trials):
            trial = study.ask()
            kappa = trial.suggest_float("kappa", low, high, log=True)
            performance = evaluate(kappa)
            study.tell(trial, performance)
            if best is None or performance > best.performance:
                best = KappaSearch(kappa, performance)
            advance(best)
    finally:
        optuna.logging.set_verbosity(spoken)
    assert best is not None
    return best
