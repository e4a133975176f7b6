"""docs/support.md is as new as the tiny models and transformers, and everything in it is right."""

import re

import pytest
import transformers

from tests.families.refused import REFUSED
from tests.families.support import DOCUMENT, NOT_RUN, RIGHT, STAGES, WRONG
from tests.families.zoo import FAMILIES
from tests.processors.zoo import CHECKPOINTS
from vistrim._utils.releases import NEWEST, release


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    text = DOCUMENT.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


MADE_WITH = re.search(r"transformers (\d+\.\d+)", DOCUMENT.read_text(encoding="utf-8"))
only_there = pytest.mark.skipif(
    MADE_WITH is None or release(MADE_WITH[1]) != release(transformers.__version__),
    reason="the page is about another transformers release",
)


@only_there
def test_it_lists_every_family_and_every_refusal():
    titles = [family.title for family in FAMILIES.values()]
    for heading in ("Families", "Stages, attention and batches", "Ways to generate"):
        assert [row[0] for row in rows(heading)] == titles
    assert [row[0] for row in rows("Real processors")] == [FAMILIES[name].title for name in CHECKPOINTS]
    assert [row[0] for row in rows("Refused")] == sorted(REFUSED)


def test_every_stage_of_every_family_is_right():
    for title, *cells in rows("Stages, attention and batches"):
        assert len(cells) == len(STAGES)
        assert all(RIGHT * 2 in cell for cell in cells), title
    text = DOCUMENT.read_text(encoding="utf-8").split("## Families\n")[1]
    assert WRONG not in text
    assert f"| {NOT_RUN} " not in text


def test_it_was_made_with_the_newest_transformers():
    assert MADE_WITH is not None
    assert release(MADE_WITH[1]) == NEWEST
