"""Questions for each model: those that it was trained to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vistrim.evaluation.items import Item, Task, with_images
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


def questions(
    model: str,
    tasks: str,
    *,
    split: str = "test",
    level: str = "full",
    limit: int = 100,
    seed: int = 0,
    images: str = "own",
) -> list[Item]:
    """Questions of several tasks, for `vistrim.evaluate`.

    Parameters
    ----------
    model : str
        Whose questions: each reference model is asked what it was trained to answer.
    tasks : str
        Comma-separated names of tasks, or of several together.
    split : {"test", "validation", "train"}
        Of the scenes.
    level : str
        Difficulty of the scenes.
    limit : int
        Questions per task.
    seed : int
        Which ones.
    images : {"own", "black", "wrong"}
        See `vistrim.evaluation.items.with_images`.

    Raises
    ------
    ValueError
        If there are no such tasks or questions; names those that there are.
    MissingPackageError
        If easy-VQA is asked for and not installed.

    Examples
    --------
    >>> asked = vistrim.reference.suites.questions("reference", "short,description", limit=20)
    """
    suite = suite_of(model)
    named = [part.strip() for part in tasks.split(",") if part.strip()]
    known = (*suite.together, *suite.evaluated)
    if not named:
        raise ValueError(f"no task: choose from {', '.join(known)}")
    if unknown := [part for part in named if part not in known]:
        raise ValueError(f"no task {unknown[0]!r}: choose from {', '.join(known)}")
    names = dict.fromkeys(name for part in named for name in suite.together.get(part, (part,)))
    return [item for name in names for item in with_images(suite.items(name, split, level, limit, seed), images)]
