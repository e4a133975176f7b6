import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageChops, ImageStat

from vistrim.reference.processing import GRID
from vistrim.reference.rendering import outline, patch_owners, render
from vistrim.reference.scenes import CELL, LEVELS, SPLITS, Difficulty, generate_scene

scenes = st.builds(
    lambda index, level: generate_scene("train", index, LEVELS[level]),
    st.integers(0, 10**9),
    st.sampled_from(sorted(LEVELS)),
)
few = settings(max_examples=60, deadline=None)


@few
@given(st.integers(0, 10**9), st.sampled_from(SPLITS), st.sampled_from(sorted(LEVELS)))
def test_the_same_arguments_give_the_same_scene(index, split, level):
    assert generate_scene(split, index, LEVELS[level]) == generate_scene(split, index, LEVELS[level])


def test_the_same_scene_gives_the_same_pixels():
    scene = generate_scene("train", 3, LEVELS["full"])
    assert render(scene).tobytes() == render(scene).tobytes()


@few
@given(scenes)
def test_shapes_stay_inside_their_own_area(scene):
    for shape in scene.shapes:
        row, column = divmod(shape.cell, 3)
        assert column * CELL - 1e-9 <= shape.x - shape.radius
        assert shape.x + shape.radius <= (column + 1) * CELL + 1e-9
        assert row * CELL - 1e-9 <= shape.y - shape.radius
        assert shape.y + shape.radius <= (row + 1) * CELL + 1e-9


@few
@given(scenes)
def test_outlines_do_not_overlap_and_lie_in_the_radius(scene):
    for shape in scene.shapes:
        corners = outline(shape) if shape.kind != "circle" else ()
        assert all(math.dist(c, (shape.x, shape.y)) <= shape.radius * 1.001 for c in corners)
    cells = [shape.cell for shape in scene.shapes]
    assert cells == sorted(set(cells))


@few
@given(scenes)
def test_letters_are_unique_and_counts_are_in_bounds(scene):
    letters = [shape.letter for shape in scene.shapes]
    assert len(set(letters)) == len(letters)
    assert 1 <= len(letters) <= 8


@few
@given(scenes)
def test_every_shape_owns_patches_around_its_center(scene):
    owners = patch_owners(scene, GRID).reshape(GRID, GRID)
    for index, shape in enumerate(scene.shapes):
        assert owners[int(shape.y * GRID), int(shape.x * GRID)] == index


def test_splits_share_no_scene():
    drawn = {split: {generate_scene(split, i, LEVELS["full"]) for i in range(300)} for split in SPLITS}
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


def test_rendering_is_the_same_picture_at_other_sizes():
    scene = generate_scene("test", 0, LEVELS["several"])
    small, large = render(scene, 144), render(scene, 288).reduce(2)
    difference = ImageStat.Stat(ImageChops.difference(small, large)).mean
    assert max(difference) < 2


def test_unknown_split_and_impossible_difficulty_are_refused():
    with pytest.raises(ValueError, match="split"):
        generate_scene("holdout", 0, LEVELS["few"])
    with pytest.raises(ValueError, match="max_shapes"):
        Difficulty(2, 10)
