"""The files that an evaluation writes: results.json, results.md and results.png."""

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
* accuracy: exact match, or the score that the task defines; mean of the tasks if there are several
* retained: accuracy divided by that of the untouched model on the same items, with the 95 % bootstrap interval
  ({RESAMPLES} draws); an interval of zero width shows only that no difference occurred on these items
* agree: share of the answers that equal the untouched model's, word for word
* tokens: visual tokens per layer in prefill, mean over layers
* FLOPs: decoder FLOPs in prefill plus all FLOPs of the method's own networks, such as a guide model, as a share of the
  untouched model's decoder FLOPs in prefill; without the vision tower
* KV mean: bytes divided by the untouched model's at the same step, mean over steps
* KV peak: largest number of bytes divided by the untouched model's largest for an answer of the same length
* exited: share of the items that the guide model answered alone; their cost is only the FLOPs of the guide model
* costs are those of each sample alone, without the padding of its batch"""


def write(folder: Path, found: Evaluation, command: str, remark: str = "") -> dict[str, Any]:
    """Write the three files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    found : Evaluation
        The result; its settings must include the model's name.
    command : str
        Command that repeats the evaluation.
    remark : str
        Note about the model's figures, for ``results.md``.

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
