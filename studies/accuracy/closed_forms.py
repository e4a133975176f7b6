"""What ST³'s own form loses, by start layer and stride, on the questions of a search.

    vistrim calibrate st3 --model NAME --budget BUDGET --form st3 --out schedule.json
    python -m studies.accuracy.closed_forms schedule.json.progress.jsonl --search "vistrim calibrate ..." --out FILE.md

writes a table of all start layers and strides that the search tried, without annealing, those with the most questions
first. The loss is that of `vistrim.calibration.st3`.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from vistrim._utils.files import write_whole
from vistrim._utils.tables import Table

LAYERS = re.compile(r"layers=([\d/]+),")


def table(progress: Path) -> Table:
    """Summarize the progress file of a search.

    Parameters
    ----------
    progress : Path
        The file.
    """
    rows = [json.loads(line) for line in progress.read_text(encoding="utf-8").splitlines()]
    tried: dict[tuple[int, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if "decay=constant" in row.get("method", ""):
            found = LAYERS.search(row["method"])
            assert found is not None
            tried[tuple(map(int, found[1].split("/")))].append(row)
    ordered = sorted(tried, key=lambda layers: (-len(tried[layers]), mean(row["lost"] for row in tried[layers])))
    return Table(
        "Loss of ST³'s form on the questions of a search",
        ("start layer", "stride", "cuts", "questions", "lost", "answers kept"),
        [_cells(layers, tried[layers]) for layers in ordered],
    )


def _cells(layers: tuple[int, ...], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    lost, kept = (100 * mean(row[name] for row in rows) for name in ("lost", "kept"))
    numbers = str(layers[0]), str(layers[1] - layers[0]), str(len(layers)), str(len(rows))
    return (*numbers, f"{lost:.2f} %", f"{kept:.0f} %")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("progress", type=Path)
    parser.add_argument("--search", required=True, help="command of the search, to be shown")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_whole(options.out, f"```\n{options.search}\n```\n\n{table(options.progress).markdown()}\n")


if __name__ == "__main__":
    main()
