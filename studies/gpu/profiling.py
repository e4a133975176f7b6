"""Where the time of prefill and of decoding steps goes: kernels, gaps between them, and waits for the device.

``python -m studies.gpu.profiling --device cuda --out FOLDER --seconds 40``. Times come from runs without the profiler,
which slows the host down; what the device does comes from runs with it.
"""

import argparse
import gc
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from studies.gpu.headline import wanted
from studies.gpu.results import Deadline, environment, since_start, write
from vistrim import PVTP, ST3, trim
from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.subject import Subject
from vistrim.engine.report.timing import clock

SIDES = {UNTOUCHED: None, "pvtp": PVTP(), "st3": ST3()}
SHAPES = (
    ("llava-1.5-7b", 1, (UNTOUCHED, "pvtp")),
    ("llava-next-7b", 8, (UNTOUCHED, "pvtp", "st3")),
)
"""Model, batch and workload."""
STEPS = 8
TOP = 15
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpyAsync", "aten::item",
         "aten::_local_scalar_dense", "aten::nonzero", "cudaLaunchKernel", "cuLaunchKernel", "cudaMalloc")  # fmt: skip
"""Counters."""


class AtFirstToken:
    """A stopping criterion that never stops, and does something when the prefill is over."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work, self._seen = work, 0

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self._seen += 1
        if self._seen == 1:
            self._work()
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def generate(subject: Subject, new_tokens: int, at_first: Callable[[], None] = lambda: None) -> None:
    """Generate greedily, without looking at the answer."""
    criteria = [AtFirstToken(at_first)]
    subject.model.generate(
        **subject.inputs,
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        stopping_criteria=criteria,
    )


def run(device: str, out: Path, seconds: float, commit: str | None, *, tiny: bool = False) -> None:
    """Profile each shape and side until the time is up."""
    deadline, where = Deadline(seconds), torch.device(device)
    found: dict[str, Any] = {"environment": environment(device, commit), "shapes": {}}
    text: list[str] = []
    for model, batch, labels in SHAPES:
        if deadline.left < 8 and not tiny:
            break
        name = f"{model}, batch {batch}"
        found["shapes"][name] = sides = {}
        subject = make_subject(wanted(model, batch, device, tiny))
        for label in labels:
            method = SIDES[label]
            if deadline.left < 3:
                sides[label] = {"error": "no time"}
                continue
            try:
                with trim(subject.model, method) if method is not None else nullcontext():
                    sides[label], tables = _one(subject, where)
                text += [f"# {name}: {label}, {part}\n\n{table}" for part, table in tables.items()]
            except Exception as error:
                sides[label] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
            write(out / "profile.json", found)
            (out / "profile.txt").write_text("\n\n".join(text) + "\n")
            print(f"{name}, {label}: {_line(sides[label])}", flush=True)
        del subject
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    write(out / "profile.json", found)


def _one(subject: Subject, device: torch.device) -> tuple[dict[str, Any], dict[str, str]]:
    """Both parts of a generation: times, kernels and waits."""
    generate(subject, 3)
    seconds = _seconds(subject, device)

    def prefill(start: Callable[[], None]) -> None:
        start()
        generate(subject, 1)

    parts = {
        "prefill": _profiled(prefill, device),
        "steps": _profiled(lambda start: generate(subject, 1 + STEPS, start), device),
    }
    waits = _waits(subject, device)
    found = {
        part: {"seconds": seconds[part], **_kernels(profiled, seconds[part], device), "waits_at": waits[part]}
        for part, profiled in parts.items()
    }
    sort = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    tables = {
        part: profiled.key_averages().table(sort_by=sort, row_limit=25, max_name_column_width=80)
        for part, profiled in parts.items()
    }
    return {"steps_profiled": STEPS, **found}, tables


def _seconds(subject: Subject, device: torch.device) -> dict[str, float]:
    """Encoding and prefill, and all steps together, without the profiler."""
    middle: list[float] = []
    began = clock(device)
    generate(subject, 1 + STEPS, lambda: middle.append(clock(device)))
    ended = clock(device)
    return {"prefill": middle[0] - began, "steps": ended - middle[0]}


def _profiled(work: Callable[[Callable[[], None]], Any], device: torch.device) -> Any:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    profiler = profile(activities=activities)

    def start() -> None:
        clock(device)
        profiler.start()

    work(start)
    clock(device)
    profiler.stop()
    return profiler


def _kernels(profiler: Any, seconds: float, device: torch.device) -> dict[str, Any]:
    """The kernels that took longest, how long the device was busy, and how often the host waited for it."""
    events = list(profiler.events())
    on_device = [event for event in events if event.device_type != DeviceType.CPU]
    kernels = [event for event in on_device if not getattr(event, "is_user_annotation", False)]
    busy = _union((event.time_range.start, event.time_range.end) for event in kernels) / 1e6
    times: Counter[str] = Counter()
    for event in kernels:
        times[event.name] += event.time_range.elapsed_us()
    counts = Counter(event.name for event in events)
    calls = Counter(event.name for event in kernels)
    top = [{"name": name[:200], "ms": us / 1e3, "calls": calls[name]} for name, us in times.most_common(TOP)]
    return {
        "kernels": len(kernels),
        "device_busy_seconds": busy,
        "device_idle_share": 1 - busy / seconds if device.type == "cuda" else None,
        "counts": {name: counts[name] for name in WAITS if counts[name]},
        "top_kernels": top,
    }


def _union(ranges: Iterable[tuple[float, float]]) -> float:
    """Length of what intervals cover together."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(ranges):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def _waits(subject: Subject, device: torch.device) -> dict[str, dict[str, int]]:
    """Lines of Python at which the host waited for the device, with how often."""
    if device.type != "cuda":
        return {"prefill": {}, "steps": {}}
    with _listening() as heard:
        at_first: list[int] = []
        generate(subject, 1 + STEPS, lambda: at_first.append(len(heard)))
    found = [f"{_short(one.filename)}:{one.lineno}" for one in heard if "synchroniz" in str(one.message)]
    # What else was warned of is not counted; the mark is among all warnings.
    before = sum("synchroniz" in str(one.message) for one in heard[: at_first[0]])
    return {"prefill": dict(Counter(found[:before])), "steps": dict(Counter(found[before:]))}


@contextmanager
def _listening() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield heard
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _short(path: str) -> str:
    for folder in (*sysconfig.get_paths().values(), str(Path.cwd())):
        path = path.removeprefix(folder + "/")
    return path.split("site/")[-1]


def _line(side: dict[str, Any]) -> str:
    if "error" in side:
        return side["error"]
    return "; ".join(
        f"{part} {1e3 * side[part]['seconds']:.1f} ms, {side[part]['kernels']} kernels, "
        f"busy {1e3 * side[part]['device_busy_seconds']:.1f} ms, {side[part]['counts']}"
        for part in ("prefill", "steps")
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--commit")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the study out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run(options.device, options.out, since_start(options.seconds), options.commit, tiny=options.tiny)
    print(f"profile: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
