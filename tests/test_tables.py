"""Tables of formatted text in terminals of any width."""

import pytest
from rich.console import Console

from vistrim._utils.tables import Table

NUMBERS = tuple(f"{number}.{number} %" for number in range(100, 110))
TABLE = Table(
    "Each layer compared with the previous one",
    ("layers", *(f"other question, row {number}" for number in range(9)), "overlap"),
    [("0, 1", *NUMBERS), ("1, 2", *NUMBERS)],
    frozenset({(1, 2)}),
)


def shown(table: Table, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120, 140, 400])
def test_numbers_are_whole_beside_their_label_at_any_width(width):
    lines = shown(TABLE, width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "…" not in text
    # Both rows have the same numbers; each is in a line that begins with the label of its row.
    for label in ("0, 1", "1, 2"):
        own = [line for line in lines if line.startswith(f"│ {label} ")]
        assert all(sum(f" {number} " in line for line in own) == 1 for number in NUMBERS)
    heads = sum(line.startswith("┏") for line in lines)
    assert text.count("layers") == heads
    assert text.count("overlap") == 1
    assert (heads == 1) == (width >= 140)


def test_long_labels_leave_room_for_the_numbers():
    label = "st3:" + "x" * 100
    table = Table("t", ("method", "accuracy", "agree"), [(label, "97.0 %", "100.0 %")])
    lines = shown(table, 80)
    assert any("97.0 %" in line and "100.0 %" in line for line in lines)
    assert sum(line.count("x") for line in lines) == 100
