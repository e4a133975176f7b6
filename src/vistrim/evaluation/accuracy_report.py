"""The files that an evaluation leaves: results.json, results.md and results.png."""

import json
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim.evaluation.accuracy_plot import plot
from vistrim.evaluation.accuracy_summary import RESAMPLES
from vistrim.evaluation.accuracy_tables import notes, tables
from vistrim.evaluation.evaluating import Evaluation

SHOWN_FAILURES = 20

DEFINITIONS = f"""\
* accuracy: exact match, or the score that the task names; over several tasks the mean of the tasks
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


def write(folder: Path, found: Evaluation, command: str, remark: str = "") -> dict[str, Any]:
    """Write the three files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    found : Evaluation
        Its settings name the model.
    command : str
        That repeats the evaluation.
    remark : str
        What to know of the model's figures, for ``results.md``.

    Returns
    -------
    dict
        The content of ``results.json``.
    """
    content = {"command": command, **found.to_dict()}
    write_whole(folder / "results.json", json.dumps(content, indent=2) + "\n")
    write_whole(folder / "results.md", _markdown(found, command, remark))
    plot(found.rows, folder / "results.png")
    return content


def _markdown(found: Evaluation, command: str, remark: str) -> str:
    parts = [f"# Accuracy of {found.settings['model']}, untouched and trimmed", f"```\n{command}\n```"]
    parts.append(", ".join(f"{key} {value}" for key, value in found.settings.items()))
    parts.append(remark)
    parts += [table.markdown() for table in tables(found.rows)]
    parts += ["![accuracy against cost](results.png)", DEFINITIONS]
    parts.append("\n".join(f"* {line}" for line in notes(found.rows)))
    if found.failures:
        lines = [f"* {f.item} with {f.method}: {f.error}" for f in found.failures[:SHOWN_FAILURES]]
        parts.append("\n".join([f"### {len(found.failures)} items failed", "", *lines]))
    return "\n\n".join(part for part in parts if part) + "\n"
