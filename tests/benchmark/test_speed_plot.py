"""The plot of a benchmark, and the names in it."""

import pytest
from PIL import Image

from tests.benchmark.made_rows import many, trimmed, untouched
from vistrim._utils.labels import short_names
from vistrim.benchmark.speed_plot import LONGEST_LABEL, plot, time_parts


def height(path, count, steps):
    """Draw so many methods, with or without decoding, and return the height of the plot."""
    rows = many(count) if steps else [untouched(0), *(trimmed(f"m{i}", 1 + i, 0) for i in range(count - 1))]
    plot(rows, path)
    with Image.open(path) as image:
        # Something is drawn: not one colour alone.
        assert len(image.convert("L").getcolors()) > 10
        assert image.width > 500
        return image.height


@pytest.mark.slow
def test_more_methods_make_a_taller_plot(tmp_path):
    assert height(tmp_path / "results.png", 2, steps=4) < height(tmp_path / "results.png", 6, steps=4)


@pytest.mark.parametrize(
    ("count", "steps"),
    [(1, 0), *(pytest.param(count, steps, marks=pytest.mark.slow) for count, steps in ((1, 4), (2, 0), (12, 0)))],
)
def test_written_for_any_number_of_methods(tmp_path, count, steps):
    assert height(tmp_path / "results.png", count, steps)


@pytest.mark.parametrize("select", [0.0, 0.016, 1.2])
def test_parts_add_up_to_the_generation(select):
    row = trimmed(select=select)
    parts = time_parts(row)
    assert sum(parts.values()) == pytest.approx(row.total)
    assert all(seconds >= 0 for seconds in parts.values())


def test_long_labels_lose_their_parameters_and_stay_apart():
    labels = [row.label for row in many(4)] + ["st3", "fastervlm+st3"]
    names = short_names(labels, LONGEST_LABEL)
    assert names["st3"] == "st3"
    assert len(set(names.values())) == len(labels)
    assert names[labels[2]] == "fastervlm+st3, original positions #2"


def test_a_short_label_keeps_its_name_beside_one_shortened_to_it():
    names = short_names(["st3:preset=compact,stride=2", "st3"], 10)
    assert names["st3"] == "st3"
    assert names["st3:preset=compact,stride=2"] != "st3"
