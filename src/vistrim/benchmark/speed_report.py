"""The files that a benchmark leaves: results.json, results.md and results.png."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim.benchmark.benching import Benchmark
from vistrim.benchmark.results import Row
from vistrim.benchmark.speed_plot import plot
from vistrim.benchmark.speed_tables import notes, tables

DEFINITIONS = """\
How it was measured: every method and the untouched model generate once in each round, in one process, in an order that
rotates from round to round. Times are medians over the rounds; a speed-up is the median of the ratios of untouched over
trimmed time within each round, so that a machine that gets slower or faster meanwhile does not distort it.

* tokens: visual tokens per layer and sample in prefill, mean over layers
* encode: vision tower and projector; 0 ms in a model that encodes images inside its own forward pass, where it counts
  as prefill
* select: a method's own work up to the first token, that of its guide included; it is a part of encode and prefill
* per cut: select over prefill, divided by the number of cuts, for methods that cut by the decoder's own attention
* prefill: from the encoded images to the first token, select included
* decode, per token: one decoding step of the whole batch, mean over the steps of a run
* first token: encode and prefill
* total: the whole generation
* slower: a speed-up that is below 1 as it is printed; nothing is clamped. The ratio of each round is in results.json:
  where they lie on both sides of 1, the difference is noise
* limit of prefill: the untouched model's decoder FLOPs in prefill over the method's, those of its own networks included
* limit of decode: the bytes that a step has to read at least, weights and KV cache, mean over the steps: the untouched
  model's over the method's
* share: speed-up over limit. In prefill it falls short of 100 % where matrix products of few rows have fixed costs. In
  decode it may exceed 100 %, because transformers' own cache copies all that it holds at each step and that of a
  trimmed model grows in place (what this alone gains, without any trimming, is the row keep-everything); it falls short
  where the fixed costs of a step outweigh what it reads
* KV peak, KV mean, KV end: bytes of keys and values over the untouched model's: the largest of each, the mean of the
  ratios over the steps (prefill included), and after the last step
* KV bytes, peak: the largest number of bytes held, for the whole batch
* peak beyond the weights: most memory held during a run beyond what was held before it, largest of the rounds;
  unknown where the platform does not tell
* in the picture, long names lose their parameters; those that would be the same are numbered in the tables' order"""

RANDOM_WEIGHTS = (
    "The weights are random: time and memory are those of a model of this shape, the answers mean nothing, and so do "
    "the choices of methods that decide by what they see."
)


def write(folder: Path, found: Benchmark, command: str) -> dict[str, Any]:
    """Write the three files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    found : Benchmark
        What was measured.
    command : str
        That repeats the benchmark.

    Returns
    -------
    dict
        The content of ``results.json``.
    """
    content = {"command": command, **found.to_dict()}
    write_whole(folder / "results.json", json.dumps(content, indent=2) + "\n")
    write_whole(folder / "results.md", _markdown(found.rows, content))
    plot(found.rows, folder / "results.png")
    return content


def _markdown(rows: Sequence[Row], found: dict[str, Any]) -> str:
    environment = found["environment"]
    on_processor = str(found["settings"].get("device", "cpu")).startswith("cpu")
    where = (
        f"{environment['processor' if on_processor else 'accelerator']}, {environment['cores']} cores, "
        f"{environment['threads']} threads, torch {environment['torch']}, transformers {environment['transformers']}, "
        f"{environment['date']}"
    )
    parts = [
        f"# Speed and memory of {found['settings']['model']}, untouched and trimmed",
        f"```\n{found['command']}\n```",
        ", ".join(f"{key} {value}" for key, value in found["settings"].items()),
        where,
        RANDOM_WEIGHTS if found["random_weights"] else "",
        *(table.markdown() for table in tables(rows)),
        "![speed-up against its limit, KV cache over steps, and where the time goes](results.png)",
        DEFINITIONS,
        "\n".join(f"* {line}" for line in notes(rows)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
