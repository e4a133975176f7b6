"""Evaluations are made once, kept in a file, and reused only for the same model and questions."""

import pytest
from PIL import Image

from tests import tiny
from tests.cli.checkpoint import build_processor
from vistrim.calibration import rate_evaluations as module
from vistrim.calibration.rate_evaluations import Asking, Evaluations, check_objective, performance
from vistrim.errors import ResumeError
from vistrim.evaluation.items import Item, Task

SETTINGS = {"weights": "abc", "objective": "agreement"}
EVERYTHING, HALF, FEW = (1.0,) * 5, (1.0, 0.5, 0.5, 0.5, 0.5), (1.0, 0.1, 0.1, 0.1, 0.1)


def item(number: int, task: str = "data", answer: str = "") -> Item:
    def picture() -> Image.Image:
        return Image.linear_gradient("L").rotate(35 * number).convert("RGB")

    return Item(f"q/{number}", Task(task), f"what is w{number + 20}", answer, picture)


@pytest.fixture
def asking(monkeypatch):
    """Counts how often the model is asked."""
    asked = []
    real = module.answer

    def counted(model, processor, items, method, max_new_tokens):
        asked.append((len(items), method))
        return real(model, processor, items, method, max_new_tokens)

    monkeypatch.setattr(module, "answer", counted)
    found = Asking(tiny.shared(), build_processor(), [item(n) for n in range(3)], 2, 4)
    return found, asked


def open_at(path, asking, **changed):
    """Closed at once, so that a test can open the file again."""
    found = Evaluations(asking, "agreement", "last", path, SETTINGS | changed)
    found.close()
    return found


def test_the_same_rates_are_evaluated_once_also_over_runs(asking, tmp_path):
    asking, asked = asking
    path = tmp_path / "p.jsonl"
    first = open_at(path, asking)
    assert first(EVERYTHING) == first.untouched.performance == 1.0
    low = first(FEW)
    assert 0 <= low < 1
    # Two batches of the three questions: untouched, and twice trimmed.
    assert [n for n, _ in asked] == [2, 1] * 3
    again = open_at(path, asking)
    assert len(again) == 2
    assert again.untouched == first.untouched
    assert (again(EVERYTHING), again(FEW)) == (1.0, low)
    assert len(asked) == 6
    again(HALF)
    assert len(asked) == 8
    assert len(path.read_text().splitlines()) == 5


def test_a_kill_loses_at_most_the_last_evaluation(asking, tmp_path):
    asking, asked = asking
    path = tmp_path / "p.jsonl"
    first = open_at(path, asking)
    half, few = first(HALF), first(FEW)
    path.write_bytes(path.read_bytes()[:-9])
    again = open_at(path, asking)
    assert len(again) == 1
    asked.clear()
    assert again(HALF) == half
    assert not asked
    assert again(FEW) == few
    assert len(asked) == 2
    assert len(open_at(path, asking)) == 2


def test_nothing_is_mixed_with_other_settings(asking, tmp_path):
    path = tmp_path / "p.jsonl"
    open_at(path, asking[0])(EVERYTHING)
    with pytest.raises(ResumeError, match=r"weights 'abc', now 'xyz'\): give another --out, or delete it"):
        open_at(path, asking[0], weights="xyz")


def test_performance_is_the_mean_over_tasks():
    asked = [item(0, "color", "red"), item(1, "color", "blue"), item(2, "count", "3")]
    given, untouched = ["Red.", "red", "3"], ["red", "red", "3"]
    assert performance("accuracy", asked, given, untouched) == 0.75
    assert performance("agreement", asked, given, untouched) == 0.75
    assert performance("agreement", asked, untouched, untouched) == 1


def test_objectives_that_the_questions_do_not_allow():
    check_objective("agreement", [item(0)])
    check_objective("accuracy", [item(0, answer="red")])
    for objective, asked, says in (
        ("speed", [item(0)], "must be accuracy or agreement"),
        ("accuracy", [], "no question"),
        ("accuracy", [item(0, answer="red"), item(1)], r"1 questions have no correct answer \(first q/1\)"),
    ):
        with pytest.raises(ValueError, match=says):
            check_objective(objective, asked)
