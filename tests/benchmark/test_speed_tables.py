"""The tables of a benchmark, made from rows by hand."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tests.benchmark.made_rows import cost, many, runs, trimmed, untouched
from vistrim._utils.units import seconds_text
from vistrim.benchmark.progress import progress_line, seconds_left
from vistrim.benchmark.results import Speedup
from vistrim.benchmark.speed_tables import notes, tables
from vistrim.cli.terminal_tables import PIPE_WIDTH


def cell(row, column, which=0):
    """The cell of the last of the rows; ``which`` of the columns of that name."""
    for table in tables([untouched(len(row.cost.kv_bytes) - 1), row]):
        places = [i for i, name in enumerate(table.columns) if name == column]
        if len(places) > which:
            return table.rows[-1][places[which]]
    raise AssertionError(f"no column {column}")


def printed(rows, color=False):
    console = Console(
        file=io.StringIO(), width=PIPE_WIDTH, force_terminal=color, color_system="standard" if color else None
    )
    for table in tables(rows):
        console.print(table)
    return console.file.getvalue()


def test_times_of_each_phase():
    row = trimmed()
    assert cell(row, "encode") == "500 ms"
    assert cell(row, "select") == "16.0 ms"
    assert cell(row, "prefill") == "1.00 s"
    assert cell(row, "decode, per token") == "50.0 ms"
    assert cell(row, "tokens") == "230.4"


def test_selection_per_cut_is_its_share_of_prefill_for_each_cut():
    assert cell(trimmed(), "per cut") == "0.4 %"
    assert cell(untouched(), "per cut") == "none"


def test_speed_up_bound_and_efficiency():
    speedups = {"prefill": Speedup(2.11, 2.37), "step": Speedup(1.04, 1.02)}
    row = trimmed(speedups=speedups)
    table = tables([untouched(), row])[1]
    at = table.columns.index("prefill")
    assert table.rows[1][at : at + 3] == ("2.11x", "2.37x", "89.0 %")
    at = table.columns.index("decode")
    # More than the limit is shown as it is.
    assert table.rows[1][at : at + 3] == ("1.04x", "1.02x", "102.0 %")


@pytest.mark.parametrize(("ratio", "shown"), [(0.93, "0.93x slower"), (0.991, "0.99x slower"), (0.999, "1.00x")])
def test_slower_is_shown_as_slower(ratio, shown):
    row = trimmed(speedups={"prefill": Speedup(ratio, 2.0)})
    table = tables([untouched(), row])[1]
    assert table.rows[1][2] == shown
    is_slower = shown.endswith("slower")
    assert table.flagged == ({(1, 2)} if is_slower else set())
    assert (f"**{shown}**" in table.markdown()) is is_slower
    red = f"\x1b[1;31m{shown}"
    assert (red in printed([untouched(), row], color=True)) is is_slower


def test_the_untouched_model_is_never_flagged():
    table = tables([untouched(), trimmed(speedup=0.5)])[1]
    assert all(row for row, _ in table.flagged)


def test_without_decoding_steps():
    row = trimmed(steps=0)
    assert cell(row, "decode, per token") == "none"
    assert cell(row, "decode") == "none"
    assert cell(row, "KV end") == "40.0 %"


def test_kv_shares_are_those_of_the_same_step():
    full, own = cost(kv_bytes=[100, 200, 400]), cost("st3", kv_bytes=[80, 80, 40])
    table = tables([untouched(cost=full), trimmed(cost=own)])[2]
    assert table.rows[1][1:5] == ("20.0 %", "43.3 %", "10.0 %", "80 bytes")


def test_memory_that_the_platform_does_not_tell():
    assert cell(trimmed(peak_bytes=None), "peak beyond the weights") == "unknown"
    assert cell(trimmed(), "peak beyond the weights") == "200.00 MiB"


def test_a_pipe_shows_all_columns_without_wrapping_numbers():
    rows = many(3)
    lines = printed(rows).splitlines()
    assert max(map(len, lines)) <= PIPE_WIDTH
    text = "\n".join(lines)
    assert "…" not in text
    for table in tables(rows):
        for line in table.rows:
            assert all(value in text for value in line[1:])


def test_notes_explain_labels():
    assert notes([untouched(), trimmed()], {}) == ["st3 = st3 with all parameters"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (1e-5, "0.010 ms"),
        (0.00123, "1.23 ms"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (69.6, "69.6 s"),
        (99.96, "100 s"),
        (1234.5, "1234 s"),
    ],
)
def test_units(seconds, text):
    assert seconds_text(seconds) == text


def test_time_left_is_that_of_the_missing_runs():
    rows = [untouched(), trimmed()]
    labels = [row.label for row in rows]
    done = runs(rows, rounds=1)
    slow, fast = (run.total_seconds for run in done)
    assert seconds_left(done, labels, 3) == pytest.approx(2 * slow + 2 * fast)
    # A method that has not run yet is taken to be like the others.
    assert seconds_left(done[:1], labels, 1) == pytest.approx(slow)
    assert seconds_left(runs(rows, rounds=3), labels, 3) == 0
    # A folder may hold more rounds than are asked for now.
    assert seconds_left(runs(rows, rounds=4), labels, 3) == 0
    assert progress_line([], labels, 3) == "round 1 of 3: warming up"
    assert progress_line(done, labels, 3).startswith("round 1 of 3: st3 done, run 2 of 6, about ")


def test_labels_with_markup_are_printed_as_they_are():
    row = replace(trimmed(), label="uniform:[bold]|x")
    assert "uniform:[bold]|x" in printed([untouched(), row])
    assert "uniform:[bold]\\|x" in tables([untouched(), row])[0].markdown()
