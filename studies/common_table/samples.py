"""The samples of a table in one compressed file.

A line holds what differs from the untouched model's sample of the same item: costs and texts repeat.
"""

import gzip
import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.store import SETTINGS
from vistrim.evaluation import Records, Sample

KEY = ("method", "item")


def pack(store: Path, packed: Path, methods: Collection[str]) -> None:
    """Write the samples of some methods, and of the untouched model, into a compressed file.

    Parameters
    ----------
    store : Path
        File of `vistrim.evaluation.Records`.
    packed : Path
        File to write. Equal samples give equal bytes.
    methods : collection of str
        Full notations.
    """
    with Records(store, {}) as records:
        samples = [sample for sample in records.rows.values() if isinstance(sample, Sample)]
        settings = records.settings
    untouched = {sample.item: asdict(sample) for sample in samples if sample.method == UNTOUCHED}
    # Samples of one method and task next to each other are the most alike.
    order = {name: number for number, name in enumerate((UNTOUCHED, *methods))}
    chosen = sorted((s for s in samples if s.method in order), key=lambda s: (order[s.method], s.task))
    lines = [{SETTINGS: settings}, *(_changes(asdict(sample), untouched[sample.item]) for sample in chosen)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    partial = packed.with_name(f"{packed.name}.partial")
    partial.write_bytes(gzip.compress(text.encode(), mtime=0))
    partial.replace(packed)


def unpack(packed: Path, store: Path) -> None:
    """Write the file of `vistrim.evaluation.Records` that was packed."""
    first, *lines = map(json.loads, gzip.decompress(packed.read_bytes()).decode().splitlines())
    untouched = {line["item"]: line for line in lines if line["method"] == UNTOUCHED}
    with Records(store, first[SETTINGS]) as records:
        records.put({**untouched[line["item"]], **line} for line in lines)


def _changes(sample: dict[str, Any], untouched: dict[str, Any]) -> dict[str, Any]:
    if sample["method"] == UNTOUCHED:
        return sample
    return {name: value for name, value in sample.items() if name in KEY or value != untouched[name]}
