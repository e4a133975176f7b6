"""Time on the clock and on the devices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def clock(*devices: torch.device) -> float:
    """Seconds, after the devices have done all work given to them."""
    for device in devices:
        if device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Adds up how long pieces of work take.

    On a single CUDA device, the work is timed by events on its stream, so that nothing waits for the device before the
    sum is asked for. Anywhere else the devices are waited for before and after each piece.

    Parameters
    ----------
    devices : sequence of torch.device
        All that the work may run on.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = tuple(devices)
        accelerators = {device for device in devices if device.type not in ("cpu", "meta")}
        only = next(iter(accelerators)) if len(accelerators) == 1 else None
        self._cuda = only if only is not None and only.type == "cuda" else None
        self._clocked = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time a piece of work."""
        if self._cuda is None:
            began = clock(*self._devices)
            yield
            self._clocked += clock(*self._devices) - began
        else:
            began_there = _mark(self._cuda)
            yield
            self._events.append((began_there, _mark(self._cuda)))

    @property
    def seconds(self) -> float:
        """The sum so far; waits for work that is not done yet, and lets go of its events."""
        for began, end in self._events:
            end.synchronize()
            self._clocked += began.elapsed_time(end) / 1e3
        self._events.clear()
        return self._clocked


def _mark(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event
