"""Time on the clock and on the devices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch

Moment: TypeAlias = "float | torch.cuda.Event"


def clock(*devices: torch.device) -> float:
    """Seconds, after the devices have done all work given to them."""
    for device in devices:
        if device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(device)
    return time.perf_counter()


class Timer:
    """Marks moments of the work on devices, and tells the time between them.

    On a single CUDA device, moments are events on its stream, so that nothing waits for the device before a time is
    asked for. Anywhere else the devices are waited for at every moment.

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

    def now(self) -> Moment:
        """Mark this moment."""
        if self._cuda is None:
            return clock(*self._devices)
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda))
        return event

    @staticmethod
    def seconds(began: Moment, ended: Moment) -> float:
        """Time between two moments; waits for work in between that is not done yet."""
        if isinstance(began, float) and isinstance(ended, float):
            return ended - began
        assert isinstance(began, torch.cuda.Event)
        assert isinstance(ended, torch.cuda.Event)
        ended.synchronize()
        return began.elapsed_time(ended) / 1e3


class Stopwatch:
    """Adds up how long pieces of work take, by a `Timer`.

    Parameters
    ----------
    devices : sequence of torch.device
        All that the work may run on.
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
        """The sum so far; waits for work that is not done yet, and lets go of its moments."""
        self._sum += sum(self._timer.seconds(*piece) for piece in self._pieces)
        self._pieces.clear()
        return self._sum
