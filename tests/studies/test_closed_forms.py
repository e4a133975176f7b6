"""The table of ST³'s own forms is made from the progress file of a search."""

import json

from studies.accuracy.closed_forms import table
from vistrim.calibration.st3.candidates import closed_form
from vistrim.calibration.st3.search import ANNEALINGS, NONE
from vistrim.methods.fitted_st3 import FittedST3


def test_forms_are_ordered_by_questions_and_loss(tmp_path):
    """Annealed schedules and the line of the settings do not count."""
    lines = [{"settings": {"model": "m"}}]
    for start, stride, annealing, lost in (
        (1, 2, NONE, [0.1, 0.2]),
        (2, 3, NONE, [0.0]),
        (1, 3, NONE, [0.02, 0.04]),
        (1, 3, ANNEALINGS[-1], [0.9]),
    ):
        method = FittedST3(closed_form(start, stride, 9), annealing, 9)
        lines += [
            {"method": str(method), "item": str(i), "lost": each, "divergence": each, "kept": 1.0}
            for i, each in enumerate(lost)
        ]
    path = tmp_path / "progress.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row[:5] for row in table(path).rows] == [
        ("1", "3", "3", "2", "3.00 %"),
        ("1", "2", "4", "2", "15.00 %"),
        ("2", "3", "3", "1", "0.00 %"),
    ]
