"""Checkpoints of every family whose processor can be made without the hub."""

from importlib import import_module
from pkgutil import iter_modules

from tests.families.zoo import FAMILIES
from tests.processors.checkpoint import Checkpoint


def _collect() -> dict[str, Checkpoint]:
    """Every module of this package has a tuple ``CHECKPOINTS``."""
    names = sorted(module.name for module in iter_modules(__path__))
    found = [made for name in names for made in import_module(f"{__name__}.{name}").CHECKPOINTS]
    return {made.family: made for made in found if made.family in FAMILIES}


CHECKPOINTS: dict[str, Checkpoint] = _collect()
"""By the name of the family."""
