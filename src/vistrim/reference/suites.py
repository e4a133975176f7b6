"""Questions for each model: those that it was trained to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vistrim.evaluation.items import Item, Task
from vistrim.reference import items as drawn
from vistrim.reference.lm import items as placed
from vistrim.shipped import PUT_TOGETHER


@dataclass(frozen=True)
class Suite:
    """Questions of one kind.

    Attributes
    ----------
    evaluated : Mapping
        Tasks by name.
    together : Mapping
        Names for groups of tasks.
    items : callable
        See `vistrim.reference.items.items`.
    """

    evaluated: Mapping[str, Task]
    together: Mapping[str, tuple[str, ...]]
    items: Callable[[str, str, str, int, int], list[Item]]


_DRAWN = Suite(drawn.EVALUATED, drawn.TOGETHER, drawn.items)
_PLACED = Suite(placed.EVALUATED, placed.TOGETHER, placed.items)


def suite_of(model: str) -> Suite:
    """Return the questions for a model: a separate suite for ``reference-lm``, that of ``reference`` for all others."""
    return _PLACED if model == PUT_TOGETHER else _DRAWN
