"""``make support``: run the family matrix and write docs/support.md from its results."""

from __future__ import annotations

import datetime
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import vistrim
from tests.families.matrix import ATTENTIONS, BATCHES
from tests.families.refused import REFUSED
from tests.families.zoo import FAMILIES, shared
from tests.processors.support import TESTS as PROCESSOR_TESTS
from tests.processors.support import ProcessorResults
from vistrim.architectures import discover

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "support.md"
MATRIX = ("test_untouched.py", "test_stages.py", "test_modes.py")
STAGES = {
    "nothing cut": "nothing cut",
    "input": "before the decoder",
    "prefill": "prefill",
    "decode": "decode",
    "all": "all together",
}
MODES = (
    "beam search",
    "several answers",
    "no cache",
    "second turn",
    "second turn with an image",
    "video",
    "image and video",
    "prompt lookup",
    "forward pass",
    "padding on the right",
)
RIGHT, WRONG, NOT_RUN, NOTHING, REFUSED_MARK = "●", "✗", "?", "·", "–"

HEAD = """\
# Support matrix

`make support` writes this page from the results of the tests that it lists. Last run: {date},
with transformers {transformers}, torch {torch}, vistrim {vistrim}: {passed} tests passed, {failed} failed.

Every family is a tiny model with random weights, made from its own configuration class, with prompts as its processor
makes them: images of several sizes, videos, tiles and separators if the family has them. The tests check that
trimming computes the right result, not how well a checkpoint answers.

* **nothing cut**: a method that acts at every stage and keeps everything gives logits that are bit-identical to those
  of the untouched model, and leaves the model as it was.
* **before the decoder** (`uniform`, `random`), **prefill** (`pvtp`, `fastv`, and `pyramiddrop`, which looks ahead),
  **decode** (`vta`), **all together** (`st3`, and a composition of the three stages): the logits of every step equal,
  up to rounding, those of transformers' own forward pass over the whole sequence, in which removed tokens are
  hidden; kept tokens, cache lengths and bytes are as planned; all text is kept.
* **{right}** right, **{wrong}** wrong, **{refused}** not supported by vistrim, **{nothing}** does not exist in the
  family or in transformers, **{not_run}** not run. Four marks stand for SDPA with one sample, SDPA with a left-padded
  batch of three (different numbers of images, one prompt without any), and eager attention with the same two.
"""


@dataclass
class Cell:
    """Outcomes of the tests of one cell, and their notes."""

    outcomes: list[str] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)

    @property
    def mark(self) -> str:
        if "failed" in self.outcomes:
            return WRONG
        return RIGHT if "passed" in self.outcomes else NOT_RUN


class Results:
    """A pytest plugin that collects the cells of the matrix."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, ...], Cell] = defaultdict(Cell)
        self.passed = self.failed = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.passed += report.outcome == "passed"
        self.failed += report.outcome == "failed"
        noted = dict(report.user_properties)
        place = noted.pop("cell", None)
        if place is None:
            return
        key = (place["family"], place.get("stage") or place["mode"], place.get("attention", ""), place.get("batch", ""))
        self.cells[key].outcomes.append(report.outcome)
        self.cells[key].notes |= set(map(str, noted.values()))


def main() -> int:
    """Run the matrix, write the page, and return pytest's exit code."""
    results, processors = Results(), ProcessorResults()
    files = [*(str(HERE / name) for name in MATRIX), str(PROCESSOR_TESTS)]
    options = ["-q", "-n", "2", "--dist", "worksteal", *sys.argv[1:]]
    code = pytest.main([*files, *options], plugins=[results, processors])
    DOCUMENT.write_text(page(results, processors), encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(HERE.parents[1])}")
    return int(code)


def page(results: Results, processors: ProcessorResults) -> str:
    """The whole document."""
    head = HEAD.format(
        date=datetime.date.today(),
        transformers=transformers.__version__,
        torch=torch.__version__.partition("+")[0],
        vistrim=vistrim.__version__,
        passed=results.passed,
        failed=results.failed,
        right=RIGHT,
        wrong=WRONG,
        not_run=NOT_RUN,
        nothing=NOTHING,
        refused=REFUSED_MARK,
    )
    stages, stage_notes = _stages(results)
    modes, mode_notes = _modes(results, len(stage_notes))
    parts = [
        head,
        "## Families\n",
        "Methods that read the vision tower are `fastervlm`, `vispruner`, `vtc-cls`, `hybrid`, `quecc`, `visionzip`,\n"
        "`scope`, `holov` and `vscan`. Under M-RoPE, methods take `positions=original`.\n"
        "`vistrim methods --model NAME` says what runs on a checkpoint.\n",
        _table(("family", "model type", "what is special", "reads", "tower", "RoPE"), map(_facts, FAMILIES)),
        "## Stages, attention and batches\n",
        stages,
        "## Ways to generate\n",
        "With SDPA; cuts in prefill (`pvtp`), and ST³ if it can run.\n",
        modes,
        "\n".join(f"{number}. {note}" for number, note in enumerate([*stage_notes, *mode_notes], 1)) + "\n",
        processors.section(),
        "## Refused\n",
        "`trim` and `vistrim methods --model NAME` reject these classes with the reason.\n",
        _table(("model type", "reason"), ((name, _refusal(name)) for name in sorted(REFUSED))),
    ]
    return "\n".join(parts)


def _facts(name: str) -> tuple[str, ...]:
    model, family = shared(name), FAMILIES[name]
    spec = discover(model)
    told = sys.modules[family.make_sample.__module__].__doc__ or ""
    special = re.sub(r"\s+", " ", told.strip().split("\n\n")[0])
    return (
        family.title,
        model.config.model_type,
        special.partition(": ")[2].rstrip(".") or special.rstrip("."),
        " and ".join(f"{modality}s" for modality in spec.visual_token_ids),
        "yes" if spec.images.tower is not None else "no",
        "M-RoPE" if spec.rope_axes > 1 else "1-D",
    )


def _stages(results: Results) -> tuple[str, list[str]]:
    notes: list[str] = []
    rows = []
    for name, family in FAMILIES.items():
        row = [family.title]
        for stage in STAGES:
            cells = [results.cells[name, stage, attention, batch] for attention in ATTENTIONS for batch in BATCHES]
            marks = "".join(_marked(name, attention, cell) for attention, cell in _by_attention(cells))
            row.append(marks + _numbers(cells, notes, 0))
        rows.append(row)
    return _table(("family", *STAGES.values()), rows), notes


def _by_attention(cells: Sequence[Cell]) -> Iterable[tuple[str, Cell]]:
    return zip([attention for attention in ATTENTIONS for _ in BATCHES], cells, strict=True)


def _marked(name: str, attention: str, cell: Cell) -> str:
    """The mark of a cell, unless the family's decoder does not have this kernel in transformers."""
    kernel = shared(name, attention).get_decoder().config._attn_implementation
    return cell.mark if kernel == attention else NOTHING


def _modes(results: Results, numbered: int) -> tuple[str, list[str]]:
    notes: list[str] = []
    rows = []
    for name, family in FAMILIES.items():
        row = [family.title]
        for mode in MODES:
            missing = (mode == "video" and not family.has_video) or (
                mode == "image and video" and not (family.has_video and family.has_both)
            )
            cells = [cell for (of, way, *_), cell in results.cells.items() if (of, way) == (name, mode)]
            mark = NOTHING if missing and not cells else _worst(cells)
            row.append(_excused(mark, cells) + _numbers(cells, notes, numbered))
        rows.append(row)
    return _table(("family", *MODES), rows), notes


def _excused(mark: str, cells: Iterable[Cell]) -> str:
    """The mark of a cell whose tests found that this is not supported, and that the message says so."""
    found = {note for cell in cells for note in cell.notes}
    if mark == RIGHT and any(note.startswith("vistrim does not support") for note in found):
        return REFUSED_MARK
    return NOTHING if mark == RIGHT and any(note.startswith("transformers ") for note in found) else mark


def _worst(cells: Sequence[Cell]) -> str:
    marks = {cell.mark for cell in cells} or {NOT_RUN}
    return next(mark for mark in (WRONG, NOT_RUN, RIGHT) if mark in marks)


def _numbers(cells: Iterable[Cell], notes: list[str], before: int) -> str:
    """References to the notes of some cells."""
    found = sorted({note for cell in cells for note in cell.notes})
    notes += [note for note in found if note not in notes]
    return "".join(f" [{before + notes.index(note) + 1}]" for note in found)


def _refusal(name: str) -> str:
    try:
        vistrim.trim(REFUSED[name].build(), vistrim.FastV())
    except vistrim.UnsupportedModelError as error:
        return str(error)
    return f"{WRONG} is not refused"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
