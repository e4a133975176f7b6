"""Peak memory of a piece of work."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"
"""Value for ``clear_refs`` that resets the peak resident size; see proc(5)."""

_SLACK = 16 * 2**20
"""Bytes by which the kernel's two figures may differ at the same moment, as each core keeps its own count."""

Peak = Callable[[], int | None]
"""Peak bytes since the watch began, beyond the bytes held then; None if the platform does not report them."""


def watch_peak(devices: Sequence[torch.device]) -> Peak:
    """Begin to watch the memory of the devices that a model is on.

    On CUDA devices it is the memory of tensors, summed over the peaks of all devices. Otherwise it is the resident
    memory of the whole process, as Linux counts it. For a model that is partly on a CUDA device and partly on the CPU,
    it is the peak of the CUDA device alone.

    Parameters
    ----------
    devices : sequence of torch.device
        Devices of the model's parameters.

    Returns
    -------
    callable
        Returns the peak so far.
    """
    accelerators = [device for device in devices if device.type == "cuda"]
    if accelerators:
        return _watch_cuda(accelerators)
    if all(device.type == "cpu" for device in devices):
        return _watch_process()
    return lambda: None


def _watch_cuda(devices: Sequence[torch.device]) -> Peak:
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    before = sum(map(torch.cuda.memory_allocated, devices))
    return lambda: sum(map(torch.cuda.max_memory_allocated, devices)) - before


def _watch_process() -> Peak:
    if not (_PROCESS / "clear_refs").exists():
        return lambda: None
    # Freed memory that the allocator still holds would hide new allocations.
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return lambda: None
    before, highest = _resident("VmRSS"), _resident("VmHWM")
    # Some sandboxes accept the request and reset nothing.
    if before is None or highest is None or highest - before > _SLACK:
        return lambda: None

    def peak() -> int | None:
        now = _resident("VmHWM")
        return None if now is None else max(0, now - before)

    return peak


def _resident(name: str) -> int | None:
    """Bytes of an entry in the process's status; None if there is no such entry."""
    for line in (_PROCESS / "status").read_text().splitlines():
        label, _, value = line.partition(":")
        if label == name:
            return int(value.split()[0]) * 1024
    return None
