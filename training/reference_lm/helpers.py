"""Questions that only training asks. Their answers spell out what counting and comparing places need first."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from vistrim.reference.scenes import COLORS, KINDS, Shape
from vistrim.reference.tasks import Question, Scene, plural, unique_name


def pair(scene: Scene, rng: Random) -> Question | None:
    """Ask where two objects are."""
    named = [(shape, name) for shape in scene.shapes if (name := unique_name(scene, shape, rng, "area"))]
    if len(named) < 2:
        return None
    (first, one), (second, other) = rng.sample(named, 2)
    return Question("pair", f"Where are the {one} and the {other}?", f"{first.area} and {second.area}")


def group(scene: Scene, rng: Random) -> Question:
    """Ask where all objects of a color or kind are, or all objects."""
    which = rng.choice(("", "color", "kind"))
    if not which:
        return Question("group", "Where are all the shapes?", _areas(scene, lambda shape: True))
    every = COLORS if which == "color" else KINDS
    value = getattr(rng.choice(scene.shapes), which) if rng.random() < 0.8 else rng.choice(every)
    areas = _areas(scene, lambda shape: getattr(shape, which) == value)
    return Question("group", f"Where are all the {plural(value)}?", areas)


def _areas(scene: Scene, chosen: Callable[[Shape], bool]) -> str:
    areas = [shape.area for shape in scene.shapes if chosen(shape)]
    return f"{len(areas)}: {', '.join(areas)}" if areas else "0"


HELPERS: dict[str, Callable[[Scene, Random], Question | None]] = {"pair": pair, "group": group}
