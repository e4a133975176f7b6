"""Peak memory of a piece of work."""

import ctypes

import pytest
import torch

from vistrim.benchmark import memory_peak
from vistrim.benchmark.memory_peak import watch_peak

CPU = [torch.device("cpu")]
MB = 10**6


def told() -> bool:
    return watch_peak(CPU)() is not None


def allocate(megabytes: int) -> torch.Tensor:
    """Written to, for untouched pages are not resident."""
    return torch.ones(megabytes * MB // 4)


@pytest.mark.skipif(not told(), reason="this platform does not tell the peak of a process")
def test_the_peak_is_what_was_held_at_most():
    held = allocate(100)
    peak = watch_peak(CPU)
    gone = allocate(300)
    del gone
    assert peak() == pytest.approx(300 * MB, abs=10 * MB)
    allocate(200)
    assert peak() == pytest.approx(300 * MB, abs=10 * MB)
    # A new watch knows nothing of the last.
    peak = watch_peak(CPU)
    assert peak() < 10 * MB
    allocate(50)
    assert peak() == pytest.approx(50 * MB, abs=10 * MB)
    assert len(held)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim") or not told(), reason="needs glibc on Linux")
def test_freed_memory_that_the_allocator_holds_hides_nothing():
    """Pieces too small to be handed back to the system by themselves."""
    pieces = [torch.ones(2000) for _ in range(10_000)]
    pin = torch.ones(2000)
    del pieces
    peak = watch_peak(CPU)
    again = [torch.ones(2000) for _ in range(10_000)]
    assert peak() == pytest.approx(80 * MB, abs=10 * MB)
    assert len(again) > len(pin) // 2000


def test_where_the_platform_does_not_tell_it_is_none(monkeypatch, tmp_path):
    assert watch_peak([torch.device("meta")])() is None
    monkeypatch.setattr(memory_peak, "_PROCESS", tmp_path)
    assert watch_peak(CPU)() is None
