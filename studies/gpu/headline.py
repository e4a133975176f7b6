"""``vistrim bench`` at three shapes of 7B models with random weights, and what the device can do at most.

``python -m studies.gpu.headline --device cuda --out FOLDER --seconds 180``. One file, written again after every run.
"""

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from studies.gpu.results import Deadline, OutOfTimeError, environment, since_start, write
from vistrim import PVTP, ST3, VTA, FastV, Method, VisPruner
from vistrim.benchmark.keep_everything import KEEP_EVERYTHING, KeepEverything
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.results import Row
from vistrim.benchmark.rounds import measure
from vistrim.benchmark.run_file import RunFile
from vistrim.benchmark.speed_summary import summarize
from vistrim.benchmark.speed_tables import tables
from vistrim.benchmark.subject import Wanted
from vistrim.engine.report.timing import Stopwatch

METHODS: dict[str, Method] = {
    KEEP_EVERYTHING: KeepEverything(),
    "pvtp": PVTP(),
    "st3:preset=compact": ST3.preset("compact"),
    "fastv": FastV(),
    "vispruner": VisPruner(),
    "vta:interval=8": VTA(interval=8),
}
"""As ``vistrim bench`` writes them."""
SHAPES = (("llava-1.5-7b", 1), ("llava-1.5-7b", 32), ("llava-next-7b", 8))
"""Model and batch."""
ROUNDS = 3
NEW_TOKENS = 32
COMMAND = (
    "vistrim bench --model {model} --batch {batch} --repeat {rounds} --new-tokens {new} --device {device} {methods}"
)


def run(
    device: str,
    out: Path,
    seconds: float,
    commit: str | None,
    *,
    tiny: bool = False,
) -> None:
    """Measure one shape after the other until the time is up."""
    deadline = Deadline(seconds)
    path = out / "headline.json"
    found: dict[str, Any] = {"environment": environment(device, commit), "ceilings": {}, "shapes": {}}
    write(path, found)
    found["ceilings"] = ceilings(torch.device(device), 256 if tiny else 8192)
    write(path, found)
    for i, (model, batch) in enumerate(SHAPES):
        # What a shape leaves of its time, the next ones have.
        own = Deadline(deadline.left / (len(SHAPES) - i) if i else deadline.left * 0.3)
        if deadline.left < 5:
            break
        name = f"{model}, batch {batch}"
        found["shapes"][name] = entry = {"status": "making"}
        write(path, found)
        try:
            _measure(wanted(model, batch, device, tiny), own, entry, lambda: write(path, found))
            entry["status"] = "complete"
        except OutOfTimeError:
            entry["status"] = "out of time"
        except Exception as error:
            entry["status"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        write(path, found)
        print(f"{name}: {entry['status']}, {deadline.left:.0f} s left", flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    print(summary(found), flush=True)


def wanted(model: str, batch: int, device: str, tiny: bool) -> Wanted:
    if not tiny:
        return Wanted(model, batch=batch, new_tokens=NEW_TOKENS, device=device)
    visual = {"llava-1.5-7b": 64, "llava-next-7b": 1752}[model]
    return Wanted(model, layers=4, hidden=128, batch=min(batch, 2), visual_tokens=visual, new_tokens=10, device=device)


def _measure(wanted: Wanted, deadline: Deadline, entry: dict[str, Any], save: Callable[[], None]) -> None:
    began = time.monotonic()
    subject = make_subject(wanted)
    entry |= {"making_seconds": time.monotonic() - began, "status": "running"}
    entry |= {"settings": {**subject.settings, "weight_bytes": subject.weight_bytes}, "command": _command(wanted)}

    def advance(records: RunFile) -> None:
        entry["runs"] = [asdict(one) for one in records.runs]
        entry["costs"] = {label: asdict(cost) for label, cost in records.costs.items()}
        rows = summarize(records.runs, records.costs)
        entry["rows"] = [_row(row) for row in rows]
        if rows:
            entry["tables"] = [table.markdown() for table in tables(rows)]
        save()
        if deadline.left < 0 and records.rounds < ROUNDS:
            raise OutOfTimeError

    measure(subject, METHODS, None, repeat=ROUNDS, new_tokens=wanted.new_tokens, advance=advance)


def _row(row: Row) -> dict[str, Any]:
    speedups = {phase: asdict(found) | {"share": found.share} for phase, found in row.speedups.items()}
    rates = {"prefill_tflops": row.cost.prefill_flops / row.prefill / 1e12}
    if row.step is not None:
        rates["step_gb_per_second"] = row.cost.step_bytes / row.step / 1e9
    return asdict(row) | {"speedups": speedups, "rates": rates}


def _command(wanted: Wanted) -> str:
    methods = " ".join(f"--method {method}" for method in METHODS)
    values = {"rounds": ROUNDS, "new": wanted.new_tokens, "methods": methods}
    return COMMAND.format(model=wanted.model, batch=wanted.batch, device=wanted.device, **values)


def ceilings(device: torch.device, size: int) -> dict[str, float]:
    """The fastest matrix product and the fastest copy, best of five."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(size, size, 8, device=device, dtype=torch.float32)
    target = torch.empty_like(source)
    product = _best(lambda: torch.mm(a, b), device)
    copy = _best(lambda: target.copy_(source), device)
    return {"bf16_tflops": 2 * size**3 / product / 1e12, "copy_gb_per_second": 2 * source.nbytes / copy / 1e9}


def _best(work: Callable[[], Any], device: torch.device) -> float:
    for _ in range(2):
        work()
    times = []
    for _ in range(5):
        watch = Stopwatch((device,))
        with watch.running():
            work()
        times.append(watch.seconds)
    return min(times)


def summary(found: dict[str, Any]) -> str:
    """The tables of all shapes."""
    top = ", ".join(f"{name} {value:.0f}" for name, value in found["ceilings"].items())
    parts = [f"ceilings: {top}"]
    for name, entry in found["shapes"].items():
        parts += [f"## {name} ({entry['status']})", *entry.get("tables", [])]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--commit")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the study out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run(options.device, options.out, since_start(options.seconds), options.commit, tiny=options.tiny)


if __name__ == "__main__":
    main()
