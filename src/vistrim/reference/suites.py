"""Which questions go with which model: those that it was trained to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vistrim.reference import PUT_TOGETHER
from vistrim.reference import items as drawn
from vistrim.reference.items import Item
from vistrim.reference.lm import items as placed


@dataclass(frozen=True)
class Suite:
    """Questions of one kind.

    Attributes
    ----------
    tasks : tuple of str
        Names of all tasks.
    together : Mapping
        Names of several tasks together.
    items : callable
        See `vistrim.reference.items.items`.
    """

    tasks: tuple[str, ...]
    together: Mapping[str, tuple[str, ...]]
    items: Callable[[str, str, str, int, int], list[Item]]


_DRAWN = Suite(drawn.TASK_NAMES, drawn.TOGETHER, drawn.items)
_PLACED = Suite(placed.TASK_NAMES, placed.TOGETHER, placed.items)


def suite_of(model: str) -> Suite:
    """The questions for a model: of ``reference-lm`` its own, of all others those of ``reference``."""
    return _PLACED if model == PUT_TOGETHER else _DRAWN
