"""Tiny models of every family, and prompts for them."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from tests.families.zoo.family import Family, Sample

__all__ = ["FAMILIES", "Family", "Sample", "shared"]


def _collect() -> dict[str, Family]:
    """Every module of this package but `family` has a tuple ``FAMILIES``."""
    names = sorted(module.name for module in iter_modules(__path__) if module.name != "family")
    found = [f for name in names for f in import_module(f"{__name__}.{name}").FAMILIES]
    return {f.name: f for f in found}


FAMILIES: dict[str, Family] = _collect()


@cache
def shared(name: str, attention: str = "sdpa") -> Any:
    """One model for many tests, which must leave it as it is."""
    return FAMILIES[name].build(attention)
