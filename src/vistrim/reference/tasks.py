"""Questions about a scene, with answers that are correct by construction.

Each task, or kind of task, is a function of a scene and a random stream. It returns a :class:`Question`, or None if the
scene offers no such question (for example a relation in a scene with one shape).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from vistrim.evaluation.items import plain
from vistrim.reference.scenes import COLORS, COLUMNS, KINDS, ROWS, Shape


class Scene(Protocol):
    """Anything with shapes, in raster order."""

    @property
    def shapes(self) -> Sequence[Shape]: ...


@dataclass(frozen=True)
class Question:
    """A prompt and its only correct answer.

    ``subject`` is the shape named at the end of the prompt, if there is one.
    """

    task: str
    prompt: str
    answer: str
    subject: Shape | None = None


#: Tasks that ask for one attribute of a shape: the attribute, and the wording around the shape's name.
ATTRIBUTE_QUESTIONS = {
    "color": ("color", "What color is the {}?"),
    "kind": ("kind", "What kind of shape is the {}?"),
    "size": ("size", "What size is the {}?"),
    "reading": ("letter", "Which letter is on the {}?"),
    "position": ("area", "Where is the {}?"),
}


def attribute(task: str, scene: Scene, rng: Random) -> Question | None:
    """Ask for an attribute of the shape that the question names. ``task`` is one of ``ATTRIBUTE_QUESTIONS``."""
    hidden, wording = ATTRIBUTE_QUESTIONS[task]
    shape = rng.choice(scene.shapes)
    name = unique_name(scene, shape, rng, hidden)
    return Question(task, wording.format(name), getattr(shape, hidden), shape) if name else None


def lookup(scene: Scene, rng: Random) -> Question:
    """Ask which shape has a given letter or lies in a given area."""
    shape = rng.choice(scene.shapes)
    clue = rng.choice((f"has the letter {shape.letter}", f"is at the {shape.area}"))
    return Question("lookup", f"Which shape {clue}?", f"{shape.color} {shape.kind}", shape)


def count(scene: Scene, rng: Random) -> Question:
    """Ask for the number of shapes, or of shapes of one color or kind."""
    # Half of the questions about a color or kind name one that the scene has. Otherwise most answers would be 0.
    shape = rng.choice(scene.shapes)
    group = rng.choice(("", "color", "kind"))
    if not group:
        return Question("count", "How many shapes are there?", str(len(scene.shapes)))
    every = COLORS if group == "color" else KINDS
    value = getattr(shape, group) if rng.random() < 0.7 else rng.choice(every)
    number = sum(getattr(other, group) == value for other in scene.shapes)
    return Question("count", f"How many {plural(value)} are there?", str(number))


def plural(value: str) -> str:
    """Name all shapes of a color or kind."""
    if value in COLORS:
        return f"{value} shapes"
    return "crosses" if value == "cross" else f"{value}s"


def existence(scene: Scene, rng: Random, yes: float = 0.5) -> Question:
    """Ask whether the scene has a shape of a given color and kind. ``yes`` is the share of questions answered yes."""
    present = {(shape.color, shape.kind) for shape in scene.shapes}
    if rng.random() < yes:
        shape = rng.choice(scene.shapes)
        return Question("existence", f"Is there a {shape.color} {shape.kind}?", "yes", shape)
    # If possible, a color and a kind that both occur in the scene, but not on the same shape.
    shown_colors = sorted({shape.color for shape in scene.shapes})
    shown_kinds = sorted({shape.kind for shape in scene.shapes})
    crossed = [(c, k) for c in shown_colors for k in shown_kinds if (c, k) not in present]
    absent = [(c, k) for c in COLORS for k in KINDS if (c, k) not in present]
    asked_color, asked_kind = rng.choice(crossed if crossed and rng.random() < 0.5 else absent)
    return Question("existence", f"Is there a {asked_color} {asked_kind}?", "no")


def relation(scene: Scene, rng: Random) -> Question | None:
    """Ask whether one shape lies left of, right of, above or below another one (by image areas)."""
    names = {shape: unique_name(scene, shape, rng, hidden="area") for shape in scene.shapes}
    axis, words = rng.choice(((COLUMNS, ("left of", "right of")), (ROWS, ("above", "below"))))

    def place(shape: Shape) -> int:
        return COLUMNS.index(shape.column) if axis is COLUMNS else ROWS.index(shape.row)

    pairs = [(a, b) for a in scene.shapes for b in scene.shapes if names[a] and names[b] and place(a) != place(b)]
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    word = rng.choice(words)
    truth = (place(first) < place(second)) == (word == words[0])
    return Question("relation", f"Is the {names[first]} {word} the {names[second]}?", "yes" if truth else "no", second)


def description(scene: Scene, rng: Random) -> Question:
    """Ask for all shapes in raster order: area, size, color, kind and letter."""
    prompt = rng.choice(DESCRIPTION_PROMPTS)
    return Question("description", prompt, " and ".join(describe(shape) for shape in scene.shapes))


def describe(shape: Shape) -> str:
    """Write the facts of one shape as in the long description."""
    return f"at the {shape.area} a {shape.size} {shape.color} {shape.kind} with the letter {shape.letter}"


def description_f1(given: str, right: str) -> float:
    """Compute the F1 score over object facts: (area, size), (area, color), (area, kind) and (area, letter)."""
    return f1(_facts(plain(given)), _facts(plain(right)))


def f1(given: Counter, right: Counter) -> float:
    """Compute the F1 score of two multisets; 0 if both are empty."""
    total = given.total() + right.total()
    return 2 * (given & right).total() / total if total else 0.0


def _facts(text: str) -> Counter[tuple[str, str]]:
    """List the facts of a description: the area of each shape with each of its attribute words."""
    facts: Counter[tuple[str, str]] = Counter()
    for clause in text.split(" and "):
        words = clause.split()
        # "at the ROW COLUMN a SIZE COLOR KIND with the letter LETTER"
        if len(words) == 12:
            area = f"{words[2]} {words[3]}"
            facts.update((area, word) for word in (*words[5:8], words[11]))
    return facts


#: Some contain words that are not in the vocabulary, as users will use such words.
DESCRIPTION_PROMPTS = (
    "Describe the image.",
    "Describe all shapes.",
    "Describe this image in detail.",
    "Please describe the image.",
)

TASKS: dict[str, Callable[[Scene, Random], Question | None]] = {
    **{task: partial(attribute, task) for task in ATTRIBUTE_QUESTIONS},
    "lookup": lookup,
    "count": count,
    "existence": existence,
    "relation": relation,
    "description": description,
}
SHORT_TASKS = tuple(name for name in TASKS if name != "description")


def ask(task: str, scene: Scene, rng: Random) -> Question | None:
    """Ask one question of a task about a scene. Returns None if the scene offers no such question.

    Raises
    ------
    KeyError
        If there is no such task.
    """
    return TASKS[task](scene, rng)


def unique_name(scene: Scene, shape: Shape, rng: Random, hidden: str) -> str | None:
    """Find a phrase that identifies this shape without its ``hidden`` attribute, or return None."""
    phrases = {
        ("kind",): shape.kind,
        ("color",): f"{shape.color} shape",
        ("color", "kind"): f"{shape.color} {shape.kind}",
        ("letter",): f"shape with the letter {shape.letter}",
        ("area",): f"shape at the {shape.area}",
    }
    fitting = [
        phrase
        for keys, phrase in phrases.items()
        if hidden not in keys
        and sum(all(getattr(other, k) == getattr(shape, k) for k in keys) for other in scene.shapes) == 1
    ]
    return rng.choice(fitting) if fitting else None
