"""The files that a benchmark leaves."""

import json

import pytest

from tests.benchmark.made_rows import runs, trimmed, untouched
from vistrim.benchmark.benching import Benchmark
from vistrim.benchmark.results import Cost, Row, Run, Speedup
from vistrim.benchmark.speed_report import RANDOM_WEIGHTS, write
from vistrim.benchmark.speed_tables import tables

SETTINGS = {"model": "llava-1.5-7b", "layers": 8, "batch": 1, "dtype": "float32", "repeat": 2}
COMMAND = "vistrim bench --model llava-1.5-7b --layers 8"


@pytest.fixture
def rows():
    return [untouched(), trimmed(), trimmed("keep-everything", 0.97)]


def read_back(values):
    """A row as it was, and its runs."""
    values = dict(values)
    raw = [Run(**run) for run in values.pop("runs")]
    speedups = {phase: Speedup(v["ratio"], v["limit"]) for phase, v in values.pop("speedups").items()}
    return Row(**values | {"cost": Cost(**values["cost"]), "speedups": speedups}), raw


@pytest.mark.usefixtures("undrawn")
def test_results_json_holds_rows_and_raw_runs(rows, tmp_path):
    done = runs(rows)
    found = write(tmp_path, Benchmark(rows, done, SETTINGS, False), COMMAND)
    read = json.loads((tmp_path / "results.json").read_text())
    assert read == json.loads(json.dumps(found))
    back = [read_back(values) for values in read["methods"]]
    assert [row for row, _ in back] == rows
    assert [raw for _, raw in back] == [[run for run in done if run.method == row.label] for row in rows]
    assert read["command"] == COMMAND
    assert read["settings"] == SETTINGS
    assert read["environment"]["torch"]
    assert read["environment"]["threads"] >= 1
    share = read["methods"][1]["speedups"]["prefill"]["share"]
    assert share == pytest.approx(rows[1].speedups["prefill"].share)


def test_markdown_has_command_settings_tables_and_definitions(rows, tmp_path):
    write(tmp_path, Benchmark(rows, runs(rows), SETTINGS, False), COMMAND)
    text = (tmp_path / "results.md").read_text()
    for part in (
        "# Speed and memory of llava-1.5-7b",
        COMMAND,
        "model llava-1.5-7b, layers 8, batch 1",
        "### Time, medians of 3 rounds",
        "### Speed-up",
        "### Memory",
        "**0.97x slower**",
        "](results.png)",
        "bound of prefill:",
        "bound of decode:",
        "st3 = st3 with all parameters",
    ):
        assert part in text
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("random_weights", [True, False])
def test_random_weights_are_noted(rows, tmp_path, random_weights):
    found = write(tmp_path, Benchmark(rows, runs(rows), SETTINGS, random_weights), COMMAND)
    assert (RANDOM_WEIGHTS in (tmp_path / "results.md").read_text()) is random_weights
    assert found["random_weights"] is random_weights


@pytest.mark.usefixtures("undrawn")
def test_every_column_is_defined(rows, tmp_path):
    write(tmp_path, Benchmark(rows, runs(rows), SETTINGS, False), COMMAND)
    definitions = (tmp_path / "results.md").read_text().split("results.png)")[1]
    for table in tables(rows):
        for column in table.columns[1:]:
            assert column in definitions, column
