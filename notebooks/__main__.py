"""``make notebooks``: execute the sources, or those given, and write the notebooks beside them."""

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Progress bars, and the hint that Jupyter could draw prettier ones, would be a part of the output.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}


def write(source: Path) -> None:
    """Execute a source in a new kernel and write its notebook, if no cell fails or warns."""
    notebook = jupytext.read(source, fmt="py:percent")
    place = {"metadata": {"path": HERE}}
    NotebookClient(notebook, startup_timeout=600, record_timing=False, resources=place).execute()
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells):
        # Those of jupytext are random.
        cell.id, cell.metadata = f"cell-{number}", {}
        noise = [output.text for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
        if noise:
            raise SystemExit(f"{source.name} has a cell that writes to standard error:\n{''.join(noise)}")
    text = nbformat.writes(notebook).replace(f"{HERE.parent}{os.sep}", "")
    source.with_suffix(".ipynb").write_text(text + "\n", encoding="utf-8")
    print(f"{source.stem}.ipynb: {len(text) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    os.environ.update(QUIET)
    for path in map(Path, sys.argv[1:] or sorted(map(str, HERE.glob("[0-9]*.py")))):
        write(path)
