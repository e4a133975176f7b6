"""Peers side by side: time and KV cache of vistrim and of other libraries, on the same weights.

Each library runs in a worker process, in an environment of its own (``README.md``). In each round, all sides of both
workers take turns, and only one of them computes at a time. Speed-ups are over the untouched model in the same worker.

    python -m studies.peers.measure --peer compiled --out studies/peers/results/compiled.json
    python -m studies.peers.measure --peer kvpress --python build/peers/kvpress/bin/python \
        --out studies/peers/results/kvpress.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import track

from studies.peers.subjects import TEXT, Size, save_llava, save_qwen
from studies.record import ROOT, record
from vistrim._utils.labels import UNTOUCHED


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=tuple(PEERS), required=True)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment of the peer")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--side", type=int, default=24, help="patches along one side of the image")
    parser.add_argument("--keep", type=float, default=0.25, help="share of the visual tokens")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    size = Size(options.layers, options.hidden, options.side)
    rows: dict[str, list[dict[str, float]]] = {}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        ours, theirs = PEERS[options.peer](Path(folder), size, options.keep)
        workers = {
            name: stack.enter_context(worker(python, module, settings, options))
            for name, python, module, settings in (
                ("vistrim", sys.executable, "trimmed", ours),
                (options.peer, options.python, *theirs),
            )
        }
        for number in track(range(options.rounds + 1), "rounds", console=Console(stderr=True)):
            for name, one in workers.items():
                for side in one.sides:
                    found = one.time(side)
                    # The first round warms up.
                    if number:
                        rows.setdefault(f"{name}: {side}", []).append(found)
        versions = {name: one.versions for name, one in workers.items()}
    record(options, versions=versions, rows=rows)
    text = table(rows)
    options.out.with_suffix(".md").write_text(text)
    print(text)


class Worker:
    """A process that times sides."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.versions = self._read()
        self.sides: list[str] = self.versions.pop("sides")

    def time(self, side: str) -> dict[str, float]:
        """Time one side."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{side}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Libraries print, too.
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"{self._process.args!r} ended: see its messages above")


@contextmanager
def worker(python: str, module: str, settings: Mapping[str, Any], options: argparse.Namespace) -> Iterator[Worker]:
    """Start a worker, and end it."""
    command = [python, "-m", f"studies.peers.workers.{module}", "--settings", json.dumps(settings)]
    command += ["--model", settings["model"], "--threads", str(options.threads)]
    command += ["--new-tokens", str(options.new_tokens)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(options.threads)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


Settings = dict[str, Any]
"""Folder of the model, and what the sides of a worker need."""


def _compiled(folder: Path, size: Size, keep: float) -> tuple[Settings, tuple[str, Settings]]:
    save_llava(folder, size)
    model = {"model": str(folder / "llava")}
    return {**model, "methods": [f"fastv:keep={keep}", "st3:preset=compact"]}, ("untouched", model)


def _kvpress(folder: Path, size: Size, keep: float) -> tuple[Settings, tuple[str, Settings]]:
    visual = save_llava(folder, size)
    # All layers keep the same number of visual tokens, and so does a press, which ranks text, too.
    ours = {"model": str(folder / "llava"), "methods": [f"fastervlm:keep={keep}", f"vta:horizon=16,floor={keep}"]}
    theirs = {"model": str(folder / "language-model"), "held": round(keep * visual) + TEXT, "interval": 16}
    return ours, ("kvpress", theirs)


def _sparsevlm(folder: Path, size: Size, keep: float) -> tuple[Settings, tuple[str, Settings]]:
    visual = save_qwen(folder, size)
    model = {"model": str(folder / "qwen")}
    tokens = round(keep * visual)
    # The package ranks by layer 2, too.
    methods = [f"sparsevlm:layers=2,counts={keep},positions=original", f"fastv:layer=3,keep={keep}"]
    return {**model, "methods": methods}, ("sparsevlm", {**model, "keep": tokens})


PEERS = {"compiled": _compiled, "kvpress": _kvpress, "sparsevlm": _sparsevlm}


def table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the table, in Markdown: medians, and medians of the ratios to the untouched model in the same round."""
    lines = [
        "| side | first token, s | of untouched | step, ms | of untouched | KV cache, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        untouched = rows[f"{name.partition(':')[0]}: {UNTOUCHED}"]
        cells = [name]
        for part, scale in (("first", 1), ("step", 1e3)):
            ratio = statistics.median(u[part] / row[part] for u, row in zip(untouched, found, strict=True))
            cells += [f"{scale * statistics.median(row[part] for row in found):.3g}", f"{ratio:.2f}x"]
        cells.append(f"{found[-1]['kv_bytes'] / 1e6:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
