"""Wall time of work on asynchronous devices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch

Moment: TypeAlias = "float | torch.cuda.Event"


def clock(*devices: torch.device) -> float:
    """Return the time in seconds, after all queued work of the devices."""
    for device in devices:
        if device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(device)
    return time.perf_counter()


class Timer:
    """Records moments in the work of devices, and computes the time between them.

    On a single CUDA device, moments are events on its stream, so that synchronization is deferred until a time is read.
    Otherwise the devices are synchronized at every moment.

    Parameters
    ----------
    devices : sequence of torch.device
        All devices that the work may run on.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = tuple(devices)
        accelerators = {device for device in devices if device.type not in ("cpu", "meta")}
        only = next(iter(accelerators)) if len(accelerators) == 1 else None
        self._cuda = only if only is not None and only.type == "cuda" else None

    def now(self) -> Moment:
        """Record the current moment."""
        if self._cuda is None:
            return clock(*self._devices)
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda))
        return event

    @staticmethod
    def seconds(began: Moment, ended: Moment) -> float:
        """Compute the time between two moments. Waits for unfinished work between them."""
        if isinstance(began, float):
            assert isinstance(ended, float)
            return ended - began
        assert not isinstance(ended, float)
        ended.synchronize()
        return began.elapsed_time(ended) / 1e3


class Stopwatch:
    """Sums the durations of several pieces of work, measured with a `Timer`.

    Parameters
    ----------
    devices : sequence of torch.device
        All devices that the work may run on.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._timer, self._sum = Timer(devices), 0.0
        self._pieces: list[tuple[Moment, Moment]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time a piece of work."""
        began = self._timer.now()
        yield
        self._pieces.append((began, self._timer.now()))

    @property
    def seconds(self) -> float:
        """Total time so far. Waits for unfinished work."""
        self._sum += sum(self._timer.seconds(*piece) for piece in self._pieces)
        self._pieces.clear()
        return self._sum
