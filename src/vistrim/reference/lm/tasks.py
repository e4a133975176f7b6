"""Questions about scenes that specify the form of the answer: one word or a sentence.

The questions are those of :mod:`vistrim.reference.tasks`. This module adds the form, the answers as sentences, and
answers about images without objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Literal

from vistrim.reference.lm.scenes import Scene
from vistrim.reference.tasks import (
    ATTRIBUTE_QUESTIONS,
    SHORT_TASKS,
    Question,
    attribute,
    count,
    describe,
    description,
    existence,
    lookup,
    relation,
    unique_name,
)

Form = Literal["word", "sentence"]
FORMS: tuple[Form, ...] = ("word", "sentence")

#: Tasks whose short answer has two words.
_TWO_WORDS = frozenset({"position", "lookup"})
#: More than half of the answers are yes, because a blind model would otherwise reach 50 %.
_YES = 2 / 3


def _size(scene: Scene, rng: Random) -> Question | None:
    """As `attribute`, with all sizes in the scene equally likely, because half of the objects are small."""
    size = rng.choice(sorted({shape.size for shape in scene.shapes}))
    chosen = [shape for shape in scene.shapes if shape.size == size]
    rng.shuffle(chosen)
    for shape in chosen:
        name = unique_name(scene, shape, rng, "size")
        if name:
            return Question("size", ATTRIBUTE_QUESTIONS["size"][1].format(name), size, shape)
    return None


def portrait(scene: Scene, rng: Random) -> Question | None:
    """Ask for all facts about one object, in a sentence."""
    shape = rng.choice(scene.shapes)
    name = unique_name(scene, shape, rng, rng.choice(("color", "kind", "letter", "area")))
    return Question("portrait", f"Describe the {name}.", describe(shape), shape) if name else None


_SHORT: dict[str, Callable[[Scene, Random], Question | None]] = {
    **{task: partial(attribute, task) for task in ATTRIBUTE_QUESTIONS},
    "size": _size,
    "lookup": lookup,
    "count": count,
    "existence": partial(existence, yes=_YES),
    "relation": relation,
}
#: Tasks that can be answered in a sentence.
SENTENCE_TASKS = (*SHORT_TASKS, "portrait")


def ask(task: str, scene: Scene, rng: Random, form: Form = "word") -> Question | None:
    """Ask one question of a task about a scene. Returns None if the scene offers no such question.

    Parameters
    ----------
    task : str
        One of ``SHORT_TASKS``, "portrait" (always a sentence) or "description" (the form makes no difference).
    scene : Scene
        The scene.
    rng : random.Random
        Source of randomness.
    form : {"word", "sentence"}
        Form of the answer, which the prompt names.

    Raises
    ------
    KeyError
        If there is no such task.
    """
    if task == "description":
        return description(scene, rng)
    question = portrait(scene, rng) if task == "portrait" else _SHORT[task](scene, rng)
    if question is None:
        return None
    prompt = question.prompt.replace(" a orange", " an orange")
    if form == "sentence" or task == "portrait":
        answer = _sentence(replace(question, prompt=prompt))
        return replace(question, prompt=f"{prompt} Answer in a sentence.", answer=answer)
    return replace(question, prompt=f"{prompt} Answer in {'two words' if task in _TWO_WORDS else 'one word'}.")


def about_nothing(question: Question) -> Question:
    """Change the answer of a question to that for an image without objects."""
    sentence = question.prompt.endswith("sentence.") or question.task == "description"
    if question.task == "count":
        return replace(question, answer="There are 0 shapes." if sentence else "0", subject=None)
    if question.task == "existence":
        return replace(question, answer="No, there are no shapes." if sentence else "no", subject=None)
    return replace(question, answer="There are no shapes." if sentence else "none", subject=None)


def _sentence(question: Question) -> str:
    """Write the answer of a question as a sentence."""
    task, answer = question.task, question.answer
    if task == "portrait":
        area, _, rest = answer.removeprefix("at the ").partition(" a ")
        return f"It is a {rest} at the {area}."
    if task in ATTRIBUTE_QUESTIONS:
        before, after = ATTRIBUTE_QUESTIONS[task][1].split("{}")
        name = question.prompt.removeprefix(before).removesuffix(after)
        told = {
            "color": f"The {name} is {answer}.",
            "kind": f"The {name} is a {answer}.",
            "size": f"The {name} is {answer}.",
            "reading": f"The letter on the {name} is {answer}.",
            "position": f"The {name} is at the {answer}.",
        }
        return told[task]
    if task == "lookup":
        clue = question.prompt.removeprefix("Which shape ").removesuffix("?")
        clue = clue.replace("has the", "with the").removeprefix("is ")
        return f"The shape {clue} is {_article(answer)} {answer}."
    if task == "count":
        named = question.prompt.removeprefix("How many ").removesuffix(" are there?")
        return f"There is 1 {_singular(named)}." if answer == "1" else f"There are {answer} {named}."
    if task == "existence":
        named = question.prompt.removeprefix("Is there ").removesuffix("?")
        return f"Yes, there is {named}." if answer == "yes" else f"No, there is no {named.split(' ', 1)[1]}."
    found = re.fullmatch(r"Is (the .*) (left of|right of|above|below) (the .*)\?", question.prompt)
    assert found, question
    first, word, second = found.groups()
    return f"Yes, {first} is {word} {second}." if answer == "yes" else f"No, {first} is not {word} {second}."


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _singular(plural: str) -> str:
    return plural.removesuffix("es") if plural.endswith("crosses") else plural.removesuffix("s")
