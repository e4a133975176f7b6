"""Tiny models of every family, and prompts for them."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import transformers

from tests.families.zoo.family import Family, Sample
from vistrim.engine.releases import FAULTS

__all__ = ["EVERY", "FAMILIES", "Family", "Sample", "shared"]


def _collect() -> dict[str, Family]:
    """Every module of this package but `family` has a tuple ``FAMILIES``."""
    names = sorted(module.name for module in iter_modules(__path__) if module.name != "family")
    found = [f for name in names for f in import_module(f"{__name__}.{name}").FAMILIES]
    return {f.name: f for f in found}


EVERY: dict[str, Family] = _collect()

_FAULTY = {model_type for release, model_type in FAULTS if release == transformers.__version__}
# The name begins with the model type; making all configs would take a second.
FAMILIES: dict[str, Family] = {name: f for name, f in EVERY.items() if name.partition("-")[0] not in _FAULTY}
"""Those that the installed transformers release can run."""


@cache
def shared(name: str, attention: str = "sdpa") -> Any:
    """One model for many tests, which must leave it as it is."""
    return FAMILIES[name].build(attention)
