"""Medians, ratios and speed-up bounds of runs made by hand."""

from statistics import median

import pytest

from tests.benchmark.subjects import cost, run
from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.speed_summary import summarize

COSTS = {UNTOUCHED: cost(), "half": cost("st3:x", flops=50.0, kv=(6, 3, 5))}
RUNS = [
    # The machine gets slower from round to round: medians of each side alone would say 4 / 1.
    run(UNTOUCHED, 0, 1.0, 3.0, [4.0, 6.0], peak_bytes=90),
    run("half", 0, 1.0, 2.0, [1.0, 1.5], peak_bytes=30, select_seconds=0.25),
    run("half", 1, 2.0, 4.0, [10.0, 10.0], peak_bytes=50, select_seconds=0.75),
    run(UNTOUCHED, 1, 4.0, 8.0, [12.0, 18.0], peak_bytes=70),
    run(UNTOUCHED, 2, 4.0, 20.0, [30.0, 30.0], peak_bytes=80),
    run("half", 2, 4.0, 36.0, [60.0, 60.0], peak_bytes=40, select_seconds=0.5),
]


def rows(runs=RUNS, costs=COSTS):
    return {row.label: row for row in summarize(runs, costs)}


def test_times_are_medians():
    found = rows()
    assert list(found) == [UNTOUCHED, "half"]
    untouched, half = found.values()
    assert (untouched.rounds, half.rounds) == (3, 3)
    assert (untouched.encode, untouched.prefill, untouched.step, untouched.total) == (4.0, 4.0, 15.0, 38.0)
    assert (half.encode, half.prefill, half.step, half.total) == (2.0, 2.0, 10.0, 24.0)
    assert (untouched.select, half.select) == (0.0, 0.5)
    assert (untouched.peak_bytes, half.peak_bytes) == (90, 50)
    assert (untouched.cost, half.cost) == tuple(COSTS.values())


def test_speedups_are_medians_of_the_ratios_within_rounds():
    found = rows()["half"].speedups
    assert {phase: speedup.ratio for phase, speedup in found.items()} == {
        "encode": 1.0,
        "prefill": 2.0,
        "first token": 1.5,
        "step": 1.5,
        "total": pytest.approx(38 / 24),
    }
    assert all(speedup.ratio == median(speedup.rounds) for speedup in found.values())
    assert all(len(speedup.rounds) == 3 for speedup in found.values())
    assert rows()[UNTOUCHED].speedups == {}


def test_limits():
    found = rows()["half"].speedups
    # After the prefill nothing is read yet: steps read 7 + 12 and 7 + 14, against 7 + 3 and 7 + 5 bytes.
    assert found["prefill"].limit == 2.0
    assert found["step"].limit == 20.0 / 11.0
    assert found["prefill"].share == 1.0
    assert found["step"].share == pytest.approx(1.5 * 11 / 20)
    assert [found[phase].limit for phase in ("encode", "first token", "total")] == [None] * 3


def test_slower_methods_show_as_slower():
    runs = [run(UNTOUCHED, 0, 1.0, 2.0, [1.0]), run("half", 0, 1.0, 5.0, [4.0])]
    found = rows(runs, {UNTOUCHED: cost(), "half": cost(flops=200.0)})["half"].speedups
    assert (found["prefill"].ratio, found["step"].ratio, found["total"].ratio) == (0.25, 0.25, 3 / 9)
    assert found["prefill"].limit == 0.5


@pytest.mark.parametrize("missing", [UNTOUCHED, "half"])
def test_incomplete_rounds_do_not_count(missing):
    cut = [one for one in RUNS if (one.method, one.round) != (missing, 2)]
    assert summarize(cut, COSTS) == summarize(RUNS[:4], COSTS)
    assert summarize([one for one in RUNS if one.method != missing], COSTS) == []


def test_a_method_whose_turn_has_not_come_does_not_hold_up_the_others():
    assert [row.label for row in summarize(RUNS[:1], {UNTOUCHED: COSTS[UNTOUCHED]})] == [UNTOUCHED]


def test_phases_that_do_not_take_place():
    runs = [run(UNTOUCHED, 0, 0.0, 2.0, []), run("half", 0, 0.0, 1.0, [])]
    half = rows(runs)["half"]
    assert half.step is None
    assert half.peak_bytes is None
    assert set(half.speedups) == {"prefill", "first token", "total"}
