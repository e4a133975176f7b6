import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.closeness import close
from tests.evaluation.samples import failure, sample
from vistrim import Uniform
from vistrim.evaluation import Records, summarize
from vistrim.evaluation.accuracy_plot import plot
from vistrim.evaluation.accuracy_summary import bootstrap
from vistrim.evaluation.accuracy_tables import notes, tables
from vistrim.evaluation.items import Item, Task
from vistrim.reference.items import EVALUATED
from vistrim.reference.tasks import SHORT_TASKS

METHOD = Uniform()
NAME = str(METHOD)


def item(name, task="color"):
    return Item(name, EVALUATED[task], "What?", "red", lambda: None)


@pytest.fixture
def records():
    return Records(None, {})


def row(records, items):
    untouched, trimmed = summarize(records, items, {"uniform": METHOD})
    assert untouched.method == "untouched"
    assert (trimmed.label, trimmed.method) == ("uniform", NAME)
    return untouched, trimmed


def test_figures_of_one_task(records):
    cheap = {"average_tokens": 4.0, "prefill_flops": 30.0, "method_flops": 10.0, "kv_mean": 0.5, "kv_bytes_peak": 30.0}
    records.append([sample("a"), sample("b"), sample("c", score=0.0, answer="blue"), sample("d")])
    records.append(
        [
            sample("a", NAME, **cheap),
            sample("b", NAME, score=0.0, answer="blue", **cheap),
            sample("c", NAME, score=0.0, answer="blue", **cheap),
            sample("d", NAME, **cheap),
        ]
    )
    untouched, trimmed = row(records, [item(name) for name in "abcd"])
    figures = trimmed.tasks["color"]
    assert untouched.tasks["color"].accuracy == 0.75
    assert untouched.tasks["color"].retained == untouched.tasks["color"].agreement == 1
    assert untouched.tasks["color"].retained_interval == (1, 1)
    assert figures == trimmed.groups["Short answers"]
    assert (figures.items, figures.errors, figures.accuracy) == (4, 0, 0.5)
    assert figures.retained == pytest.approx(2 / 3)
    assert figures.agreement == 0.75
    assert figures.average_tokens == 4
    assert figures.flops_ratio == pytest.approx(100 / 40)
    assert figures.flops_ratio_with_vision == pytest.approx(120 / 60)
    assert (figures.kv_mean, figures.kv_peak, figures.kv_bytes_peak) == (0.5, 0.6, 30)
    low, high = figures.accuracy_interval
    assert 0 <= low < 0.5 < high <= 1


def test_without_correct_answers_only_agreement_counts(records, tmp_path):
    unscored = Item("a", Task("mine", "Mine", scored=False), "What?", "", lambda: None)
    records.append([sample("a", score=None, answer="x"), sample("a", NAME, score=None, answer="y")])
    found = summarize(records, [unscored], {"uniform": METHOD})
    figures = found[1].groups["Mine"]
    assert (figures.accuracy, figures.retained, figures.agreement) == (None, None, 0)
    assert "none" in tables(found)[0].text()
    plot(found, tmp_path / "plot.png")


def test_a_group_is_the_mean_of_its_tasks_however_many_items_they_have(records):
    items = [item("a"), *(item(f"c{i}", "count") for i in range(3)), item("d", "description")]
    for name in ("untouched", NAME):
        records.append([sample("a", name), sample("d", name, task="description", score=0.25)])
        records.append([sample(f"c{i}", name, task="count", score=float(i == 0)) for i in range(3)])
    _, trimmed = row(records, items)
    assert trimmed.groups["Short answers"].accuracy == pytest.approx((1 + 1 / 3) / 2)
    assert trimmed.groups["Description"].accuracy == 0.25
    assert list(trimmed.groups) == ["Short answers", "Description"]


def test_failed_items_count_for_neither_side(records):
    records.append([sample("a"), sample("b", score=0.0), failure("c"), sample("d")])
    records.append([sample("a", NAME), failure("b", NAME), sample("c", NAME, score=0.0)])
    untouched, trimmed = row(records, [item(name) for name in "abcd"])
    figures = trimmed.tasks["color"]
    assert (figures.items, figures.errors) == (1, 3)
    assert figures.accuracy == figures.retained == 1
    assert trimmed.failures == [failure("b", NAME)]
    assert untouched.failures == [failure("c")]
    table = tables([untouched, trimmed])[0]
    assert table.columns[-2:] == ("items", "errors")
    assert [line[-2:] for line in table.rows] == [("3", "1"), ("1", "3")]


def test_a_method_that_failed_everywhere_has_no_figures(records):
    records.append([sample("a"), failure("a", NAME)])
    untouched, trimmed = row(records, [item("a")])
    assert trimmed.groups == trimmed.tasks == {}
    table, by_task = tables([untouched, trimmed])
    assert table.rows[1] == ("uniform", *["none"] * 8, "1")
    assert by_task.rows == [("untouched", "100.0"), ("uniform", "none")]


def test_a_group_without_one_of_its_tasks_has_no_mean(records):
    items = [item("a"), item("k", "kind")]
    records.append(
        [sample("a", score=0.0), sample("k", task="kind"), failure("a", NAME), sample("k", NAME, task="kind")]
    )
    untouched, trimmed = row(records, items)
    assert untouched.groups["Short answers"].accuracy == 0.5
    assert "Short answers" not in trimmed.groups
    assert trimmed.errors == {"Short answers": 1}
    assert tables([untouched, trimmed])[0].rows[1] == ("uniform", *["none"] * 8, "1")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("tasks", "score"), [(9, 1.0), (3, 0.8), (7, 0.1)])
def test_intervals_hold_their_own_mean(records, tasks, score, tmp_path):
    names = SHORT_TASKS[:tasks]
    for method in ("untouched", NAME):
        records.append([sample(name, method, task=name, score=score) for name in names])
    untouched, trimmed = row(records, [item(name, name) for name in names])
    figures = trimmed.groups["Short answers"]
    assert figures.accuracy_interval == pytest.approx((score, score))
    assert figures.retained == 1
    assert figures.retained_interval == (1, 1)
    plot([untouched, trimmed], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").exists()


def test_an_empty_evaluation_has_no_plot(records, tmp_path):
    records.append([failure("a"), failure("a", NAME)])
    plot(summarize(records, [item("a")], {"uniform": METHOD}), tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_truncated_answers_are_reported(records):
    records.append([sample("a", ended=False), sample("b")])
    (untouched,) = summarize(records, [item("a"), item("b")], {})
    assert untouched.tasks["color"].ended == 0.5
    assert notes([untouched]) == [
        "untouched, Short answers: 50.0 % of the answers were cut off; raise --max-new-tokens"
    ]


def test_no_accuracy_is_retained_of_zero(records):
    records.append([sample("a", score=0.0), sample("a", NAME)])
    _, trimmed = row(records, [item("a")])
    assert trimmed.tasks["color"].retained is trimmed.tasks["color"].retained_interval is None


def test_markdown_survives_odd_labels(records):
    records.append([sample("a"), sample("a", NAME)])
    untouched, trimmed = summarize(records, [item("a")], {"a|b": METHOD})
    text = tables([untouched, trimmed])[0].markdown()
    assert "a\\|b" in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1


SCORES = arrays(float, st.integers(1, 12), elements=st.floats(0, 1))


@given(strata=st.lists(SCORES, min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_bootstrap_means_are_paired_and_within_the_scores(strata, seed):
    first, second = bootstrap(strata, [scores / 2 for scores in strata], seed, resamples=50)
    assert close(torch.from_numpy(second), torch.from_numpy(first / 2))
    assert first.min() >= np.mean([scores.min() for scores in strata]) - 1e-9
    assert first.max() <= np.mean([scores.max() for scores in strata]) + 1e-9
    np.testing.assert_array_equal(first, bootstrap(strata, strata, seed, resamples=50)[0])


def test_bootstrap_in_pieces_is_the_same(monkeypatch):
    scores = np.linspace(0, 1, 30)
    whole = bootstrap([scores, scores[:7]], [scores, scores[:7]], seed=3, resamples=40)[0]
    monkeypatch.setattr("vistrim.evaluation.accuracy_summary._DRAWS_AT_ONCE", 90)
    np.testing.assert_array_equal(bootstrap([scores, scores[:7]], [scores, scores[:7]], seed=3, resamples=40)[0], whole)


def test_bootstrap_intervals_have_the_textbook_width():
    scores = np.array([1.0] * 80 + [0.0] * 20)
    drawn, _ = bootstrap([scores], [scores], seed=0, resamples=20_000)
    assert drawn.mean() == pytest.approx(0.8, abs=0.002)
    assert drawn.std() == pytest.approx((0.8 * 0.2 / 100) ** 0.5, rel=0.03)
