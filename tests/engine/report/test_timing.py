"""A stopwatch for pieces of work, on devices that are not there."""

from types import SimpleNamespace

import pytest
import torch

from vistrim.engine.report import timing
from vistrim.engine.report.timing import Stopwatch

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)


class Stream:
    """A device that is so many milliseconds into its work, and every wait for it."""

    def __init__(self):
        self.now, self.waits = 0.0, 0

    def event(self, enable_timing):
        assert enable_timing
        return Event(self)

    def wait(self, device=None):
        self.waits += 1


class Event:
    def __init__(self, stream):
        self.stream, self.at = stream, None

    def record(self, stream):
        assert stream is self.stream
        self.at = stream.now

    def synchronize(self):
        self.stream.wait()

    def elapsed_time(self, other):
        return other.at - self.at


@pytest.fixture
def stream(monkeypatch):
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.accelerator, "synchronize", stream.wait)
    # Time on the host: a second for every look at it.
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=iter(map(float, range(99))).__next__))
    return stream


def timed(stream, *devices):
    watch = Stopwatch(devices)
    for milliseconds in (250.0, 500.0):
        stream.now += 1000.0
        with watch.running():
            stream.now += milliseconds
    return watch


def test_one_gpu_times_the_work_by_itself_and_is_not_waited_for(stream):
    for devices in ((FIRST,), (FIRST, CPU), (FIRST, FIRST)):
        watch = timed(stream, *devices)
        assert stream.waits == 0
        assert watch.seconds == watch.seconds == 0.75
        assert stream.waits > 0
        stream.waits = 0


def test_several_devices_are_waited_for_around_each_piece(stream):
    watch = timed(stream, FIRST, SECOND)
    assert stream.waits == 2 * 2 * 2
    assert watch.seconds == 2.0
    assert stream.waits == 8


def test_a_processor_goes_by_the_clock(stream):
    assert timed(stream, CPU).seconds == 2.0
    assert stream.waits == 0


def test_nothing_was_timed(stream):
    assert Stopwatch((CPU,)).seconds == Stopwatch((FIRST,)).seconds == 0.0
