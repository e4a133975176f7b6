"""Answers checked against a second reading of the scene that shares no code with the tasks."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistrim.reference.scenes import COLORS, KINDS, LETTERS, LEVELS, generate_scene
from vistrim.reference.tasks import TASKS, ask, description_f1

seeds = st.integers(0, 10**9)
levels = st.sampled_from(["pair", "several", "full"])
many = settings(max_examples=80, deadline=None)


def case(task, seed, level):
    scene = generate_scene("train", seed, LEVELS[level])
    return scene, ask(task, scene, Random(seed))


def named(scene, phrase):
    """Shapes that fit a phrase, word by word."""
    words = phrase.rstrip("?").split()
    found = list(scene.shapes)
    if "letter" in words:
        return [s for s in found if s.letter == words[-1]]
    if "at" in words:
        return [s for s in found if f"{s.row} {s.column}" == " ".join(words[-2:])]
    for word in words:
        if word in COLORS:
            found = [s for s in found if s.color == word]
        if word in KINDS:
            found = [s for s in found if s.kind == word]
    return found


@many
@given(st.sampled_from(["color", "kind", "size", "reading", "position"]), seeds, levels)
def test_attribute_questions_name_one_shape_and_hide_the_answer(task, seed, level):
    scene, question = case(task, seed, level)
    if question is None:
        return
    phrase = re.sub(r"^(What color|What kind of shape|What size|Which letter|Where) is (on )?", "", question.prompt)
    (shape,) = named(scene, phrase)
    truth = {
        "color": shape.color,
        "kind": shape.kind,
        "size": shape.size,
        "reading": shape.letter,
        "position": f"{shape.row} {shape.column}",
    }
    assert question.answer == truth[task]
    assert question.subject == shape
    assert question.answer not in phrase.rstrip("?").split()


@many
@given(seeds, levels)
def test_lookup(seed, level):
    scene, question = case("lookup", seed, level)
    (shape,) = named(scene, question.prompt)
    assert question.answer == f"{shape.color} {shape.kind}"


@many
@given(seeds, levels)
def test_count(seed, level):
    scene, question = case("count", seed, level)
    asked = question.prompt.removeprefix("How many ").removesuffix(" are there?").removesuffix(" shapes")
    values = [v for s in scene.shapes for v in (s.color, s.kind, "shapes")]
    assert question.answer == str(sum(asked in (v, f"{v}s", f"{v}es") for v in values))


@many
@given(seeds, levels)
def test_existence(seed, level):
    scene, question = case("existence", seed, level)
    assert question.answer == ("yes" if named(scene, question.prompt.removeprefix("Is there a ")) else "no")


@many
@given(seeds, levels)
def test_relation(seed, level):
    scene, question = case("relation", seed, level)
    if question is None:
        return
    pattern = r"Is the (.+) (left of|right of|above|below) the (.+)\?"
    first, word, second = re.fullmatch(pattern, question.prompt).groups()
    (a,), (b,) = named(scene, first), named(scene, second)
    # Two shapes of one question never share the row or column that it asks about.
    truth = {"left of": a.x < b.x, "right of": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}
    assert question.answer == ("yes" if truth[word] else "no")


@many
@given(seeds, levels)
def test_description_names_every_shape_in_raster_order(seed, level):
    scene, question = case("description", seed, level)
    clauses = question.answer.split(" and ")
    assert len(clauses) == len(scene.shapes)
    order = []
    for clause in clauses:
        (letter,) = [w for w in clause.split() if w in LETTERS]
        (shape,) = [s for s in scene.shapes if s.letter == letter]
        order.append((round(shape.y * 3 - 0.5), round(shape.x * 3 - 0.5)))
        assert all(w in clause.split() for w in (shape.color, shape.kind, shape.size, shape.row, shape.column))
    assert order == sorted(order)


@pytest.mark.parametrize("task", ["existence", "relation"])
def test_yes_and_no_are_balanced(task):
    asked = [case(task, seed, "several")[1] for seed in range(1000)]
    answers = [q.answer for q in asked if q is not None]
    assert 0.42 < answers.count("yes") / len(answers) < 0.58


def test_every_task_finds_questions_in_every_level_with_two_shapes():
    for task in TASKS:
        assert any(case(task, seed, "pair")[1] for seed in range(50))


CLAUSE = "at the top left a small red star with the letter k"
OTHER = "at the top right a large blue cross with the letter h"


def test_descriptions_are_scored_by_their_facts():
    both = f"{CLAUSE} and {OTHER}"
    assert description_f1(both, both) == 1
    assert description_f1(f"{OTHER} and {CLAUSE}.", both) == 1
    assert description_f1(CLAUSE, both) == pytest.approx(2 / 3)
    assert description_f1(CLAUSE.replace("red", "blue"), CLAUSE) == pytest.approx(3 / 4)
    assert description_f1(CLAUSE.replace("left", "right"), CLAUSE) == 0
    assert description_f1(f"{CLAUSE} and {CLAUSE}", CLAUSE) == pytest.approx(2 / 3)
    assert description_f1("no no no", CLAUSE) == 0
    assert description_f1("", "") == 0
