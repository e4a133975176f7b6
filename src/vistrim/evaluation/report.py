"""The files that an evaluation leaves: results.json, results.md and results.png."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vistrim import reference
from vistrim.environment import stamp
from vistrim.evaluation.plot import plot
from vistrim.evaluation.summary import RESAMPLES, Row
from vistrim.evaluation.tables import notes, tables
from vistrim.files import write_whole

SHOWN_FAILURES = 20

DEFINITIONS = f"""\
* accuracy: exact match; for descriptions the F1 of the object facts, for sentences of the words that they add to the
  question; over several tasks the mean of the tasks
* retained: accuracy over the untouched model's on the same items, with the 95 % bootstrap interval ({RESAMPLES} draws);
  an interval without width means that no difference was seen in these items, not that there is none
* agree: share of the answers that are the untouched model's, word for word
* tokens: visual tokens per layer in prefill, mean over layers
* FLOPs: decoder FLOPs in prefill and all FLOPs of a method's own networks, such as a guide, as a part of the untouched
  model's decoder FLOPs in prefill, without the vision tower
* KV mean: bytes over the untouched model's at the same step, mean over steps
* KV peak: largest number of bytes over the untouched model's largest for an answer of the same length
* exited: share of the items that a method's guide answered alone; to the others' costs they add the guide's FLOPs only
* costs are those of each sample alone, without the padding of its batch"""

REFERENCE_NOTE = (
    "The reference models know nothing but drawn shapes: accuracy on them is evidence about a method's mechanics, "
    "not about large models."
)


def write(folder: Path, rows: Sequence[Row], settings: dict[str, Any], command: str) -> dict[str, Any]:
    """Write the three files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    rows : sequence of Row
        See `vistrim.evaluation.summary.summarize`.
    settings : dict
        What was asked, how.
    command : str
        That repeats the evaluation.

    Returns
    -------
    dict
        The content of ``results.json``.
    """
    found = {
        "environment": stamp(),
        "command": command,
        "settings": settings,
        "methods": [asdict(row) for row in rows],
    }
    write_whole(folder / "results.json", json.dumps(found, indent=2) + "\n")
    write_whole(folder / "results.md", _markdown(rows, settings, command))
    plot(rows, folder / "results.png")
    return found


def _markdown(rows: Sequence[Row], settings: dict[str, Any], command: str) -> str:
    parts = [f"# Accuracy of {settings['model']}, untouched and trimmed", f"```\n{command}\n```"]
    parts.append(", ".join(f"{key} {value}" for key, value in settings.items()))
    if settings["model"] in reference.NAMES:
        parts.append(REFERENCE_NOTE)
    parts += [table.markdown() for table in tables(rows)]
    parts += ["![accuracy against cost](results.png)", DEFINITIONS]
    parts.append("\n".join(f"* {line}" for line in notes(rows)))
    failures = [failure for row in rows for failure in row.failures]
    if failures:
        lines = [f"* {f.item} with {f.method}: {f.error}" for f in failures[:SHOWN_FAILURES]]
        parts.append("\n".join([f"### {len(failures)} items failed", "", *lines]))
    return "\n\n".join(part for part in parts if part) + "\n"
