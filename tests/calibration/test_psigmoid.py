"""The search for P-Sigmoid's steepness over a plain function."""

import math
import sys

import optuna
import pytest

from vistrim.calibration.psigmoid import KappaSearch, kappa_range, search_kappa
from vistrim.errors import MissingPackageError


def hill(kappa):
    """Best at 0.4."""
    return 1 - math.log(kappa / 0.4) ** 2 / 20


def test_the_best_of_all_trials_is_found():
    tried, told = [], []
    found = search_kappa(lambda kappa: tried.append(kappa) or hill(kappa), 32, 20, advance=told.append)
    low, high = kappa_range(32)
    assert (low, high) == (0.05, 3)
    assert len(tried) == len(told) == 20
    assert all(low <= kappa <= high for kappa in tried)
    assert found == told[-1] == KappaSearch(max(tried, key=hill), max(map(hill, tried)))
    assert found.kappa == pytest.approx(0.4, rel=0.25)


def test_the_first_of_equals_wins():
    tried = []
    found = search_kappa(lambda kappa: tried.append(kappa) or 1.0, 12, 5)
    assert found.kappa == tried[0]


def test_the_same_seed_goes_the_same_way_and_more_trials_only_add():
    ways = []
    for trials, seed in ((6, 0), (12, 0), (12, 1)):
        ways.append([])
        search_kappa(lambda kappa: ways[-1].append(kappa) or hill(kappa), 12, trials, seed)
    assert ways[1][:6] == ways[0]
    assert ways[2] != ways[1]


def test_the_range_has_the_same_shapes_at_every_depth():
    for layers in (12, 40):
        low, high = kappa_range(layers)
        assert (low * layers, high * layers) == pytest.approx((1.6, 96))


def test_the_verbosity_of_optuna_is_left_alone():
    before = optuna.logging.get_verbosity()
    with pytest.raises(KeyboardInterrupt):
        search_kappa(lambda _: (_ for _ in ()).throw(KeyboardInterrupt), 12)
    assert optuna.logging.get_verbosity() == before


def test_what_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="trials=0"):
        search_kappa(hill, 12, 0)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vistrim\[calibration\]'"):
        search_kappa(hill, 12)
