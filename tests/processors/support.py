"""The table of docs/support.md on real processors: the steps of each family, and their results."""

from pathlib import Path
from typing import Any

from tests.families.zoo import FAMILIES
from tests.processors.baseline import BASELINE, REFUSED
from tests.processors.steps import STEPS
from tests.processors.zoo import CHECKPOINTS

TESTS = Path(__file__).with_name("test_real_processors.py")
RIGHT, WRONG, NOT_RUN, NOTHING, REFUSED_MARK = "●", "✗", "?", "·", "–"

INTRODUCTION = """\
## Real processors

Each family as a checkpoint in a folder: the tiny model with the family's own processor and its special
tokens, saved and loaded, and used through `vistrim` and in Python. `run` gets images of 20 x 20 to 300 x 1200
pixels, a gray and a transparent one; the masks and routers that `calibrate` wrote are used. **untouched**:
keeping everything is bit-identical, and the counts are the processor's. **padded batch**: one image, two of different
sizes, and none; each sample equals itself alone. Families are missing if their processor cannot be made without
the Hub, or with few visual tokens. If torchvision's compiled part does not match the installed torch, it is left out:
the processors use only its Python functions.
"""


class ProcessorResults:
    """A pytest plugin that collects the outcomes."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        found = dict(report.user_properties).get("processor")
        if report.when == "call" and found is not None:
            self.outcomes[found["family"]] = found["outcomes"]

    def section(self) -> str:
        """Heading, table and notes."""
        notes: list[str] = []
        lines = [["family", *STEPS], ["---"] * (len(STEPS) + 1)]
        lines += [[FAMILIES[name].title, *(self._cell(name, step, notes) for step in STEPS)] for name in CHECKPOINTS]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        numbered = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1))
        return "\n".join([INTRODUCTION, table, "", *([numbered, ""] if notes else [])])

    def _cell(self, name: str, step: str, notes: list[str]) -> str:
        if name not in self.outcomes:
            return NOT_RUN
        told = self.outcomes[name].get(step)
        if told is None:
            return NOTHING
        if not told:
            return RIGHT
        if told not in notes:
            notes.append(told)
        known = {NOTHING: BASELINE, REFUSED_MARK: REFUSED}
        marks = [mark for mark, listed in known.items() if listed.get(name, {}).get(step, told + "?") in told]
        return f"{(marks or [WRONG])[0]} [{notes.index(told) + 1}]"
