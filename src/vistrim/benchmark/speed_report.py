"""The files that a benchmark writes: results.json, results.md and results.png."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim.benchmark.benching import Benchmark
from vistrim.benchmark.speed_plot import plot
from vistrim.benchmark.speed_tables import tables

DEFINITIONS = """\
Measurement: every method and the untouched model generate once in each round, in one process, in an order that rotates
from round to round. Times are medians over the rounds. A speed-up is the median of the ratios of untouched to trimmed
time within each round, so that drift of the machine's speed does not distort it.

* tokens: visual tokens per layer and sample in prefill, mean over layers
* encode: vision tower and projector; 0 ms in a model that encodes images inside its own forward pass, where encoding
  counts as prefill
* select: a method's own work up to the first token, including its guide model; it is a part of encode and prefill
* per cut: select divided by prefill and by the number of cuts, for methods that cut by the decoder's own attention
* prefill: from the encoded images to the first token, including select
* decode, per token: one decoding step of the whole batch, mean over the steps of a run
* first token: encode and prefill
* total: the whole generation
* slower: a speed-up that is below 1 as printed; nothing is clamped. The ratio of each round is in results.json; if the
  ratios are on both sides of 1, the difference is noise
* bound of prefill: decoder FLOPs of the untouched model in prefill, divided by those of the method including its own
  networks (`limit` in results.json)
* bound of decode: minimum of bytes that a step of the untouched model reads (weights and KV cache, mean over the
  steps), divided by that of the method
* efficiency: speed-up divided by its bound (`share` in results.json). In prefill it is below 100 % if matrix products
  of few rows have fixed costs. In decode it may exceed 100 %: the cache of transformers copies its content at each
  step, and the cache of a trimmed model grows in place (the row keep-everything has this gain alone, without any
  trimming). It is below 100 % if the fixed costs of a step outweigh the bytes read
* KV peak, KV mean, KV end: bytes of keys and values divided by the untouched model's: the largest of each, the mean of
  the ratios over the steps (including prefill), and after the last step
* KV bytes, peak: the largest number of bytes held, for the whole batch
* peak beyond the weights: peak memory during a run beyond the memory held before it, largest of the rounds; unknown if
  the platform does not report it
* in the plot, long names lose their parameters; names that would be equal are numbered in the order of the tables"""

RANDOM_WEIGHTS = (
    "The weights are random. Time and memory are those of a model of this shape. The answers are meaningless, and so "
    "are the tokens that content-dependent methods keep."
)


def write(folder: Path, found: Benchmark, command: str) -> dict[str, Any]:
    """Write the three files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    found : Benchmark
        The result.
    command : str
        Command that repeats the benchmark.

    Returns
    -------
    dict
        The content of ``results.json``.
    """
    content = {"command": command, **found.to_dict()}
    write_whole(folder / "results.json", json.dumps(content, indent=2) + "\n")
    write_whole(folder / "results.md", _markdown(found, command, content["environment"]))
    plot(found.rows, folder / "results.png")
    return content


def _markdown(found: Benchmark, command: str, environment: Mapping[str, Any]) -> str:
    on_processor = str(found.settings.get("device", "cpu")).startswith("cpu")
    where = (
        f"{environment['processor' if on_processor else 'accelerator']}, {environment['cores']} cores, "
        f"{environment['threads']} threads, torch {environment['torch']}, transformers {environment['transformers']}, "
        f"{environment['date']}"
    )
    parts = [
        f"# Speed and memory of {found.settings['model']}, untouched and trimmed",
        f"```\n{command}\n```",
        ", ".join(f"{key} {value}" for key, value in found.settings.items()),
        where,
        RANDOM_WEIGHTS if found.random_weights else "",
        *(table.markdown() for table in tables(found.rows)),
        "![speed-up with its bound, KV cache over steps, and time by phase](results.png)",
        DEFINITIONS,
        "\n".join(f"* {line}" for line in found.notes()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
