"""The notebooks: their sources run, and they are what was executed."""

import json
import re
import runpy
from pathlib import Path

import pytest

from vistrim.methods.base import registry

FOLDER = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]*.py"))
CELL = re.compile(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", re.MULTILINE | re.DOTALL)
LARGEST = 150_000
"""Bytes of a notebook."""


def cells(source):
    """Kind and text of each cell of a source in the percent format."""
    for markdown, body in CELL.findall(source.read_text(encoding="utf-8")):
        text = body.strip("\n")
        yield ("markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE)) if markdown else ("code", text)


def test_notebooks_are_their_sources_executed():
    assert len(SOURCES) == 6
    assert sorted(FOLDER.glob("*.ipynb")) == [source.with_suffix(".ipynb") for source in SOURCES]
    for source in SOURCES:
        written = source.with_suffix(".ipynb").read_text(encoding="utf-8")
        found = json.loads(written)["cells"]
        assert [(cell["cell_type"], "".join(cell["source"])) for cell in found] == list(cells(source)), (
            f"{source.stem} has changed: make notebooks"
        )
        code = [cell for cell in found if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), source.stem
        outputs = [output for cell in code for output in cell["outputs"]]
        assert outputs
        assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
        assert len(written) < LARGEST, source.stem


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_notebooks_run(source, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    runpy.run_path(str(source), run_name="notebook")
