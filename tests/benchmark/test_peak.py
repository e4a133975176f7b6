"""Peak memory of a piece of work."""

import ctypes

import pytest
import torch

from vistrim.benchmark import peak
from vistrim.benchmark.peak import watch_peak

CPU = [torch.device("cpu")]
MB = 10**6


def told() -> bool:
    return watch_peak(CPU)() is not None


def allocate(megabytes: int) -> torch.Tensor:
    """Written to, for untouched pages are not resident."""
    return torch.ones(megabytes * MB // 4)


@pytest.mark.skipif(not told(), reason="this platform does not tell the peak of a process")
def test_the_peak_is_the_largest_memory():
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
    monkeypatch.setattr(peak, "_PROCESS", tmp_path)
    assert watch_peak(CPU)() is None


@pytest.mark.parametrize("lines", ["VmRSS:\t 1000 kB\n", "VmRSS:\t 1000 kB\nVmHWM:\t 900000 kB\n"])
def test_where_the_peak_cannot_be_reset_it_is_none(monkeypatch, tmp_path, lines):
    (tmp_path / "clear_refs").touch()
    (tmp_path / "status").write_text(lines)
    monkeypatch.setattr(peak, "_PROCESS", tmp_path)
    assert watch_peak(CPU)() is None


def test_on_cuda_it_is_the_memory_of_tensors_on_all_devices(monkeypatch):
    devices = [torch.device("cuda", 0), torch.device("cuda", 1)]
    held, highest = {devices[0]: 100, devices[1]: 200}, {devices[0]: 999, devices[1]: 999}
    monkeypatch.setattr(torch.cuda, "memory_allocated", held.__getitem__)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", highest.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: highest.update({device: held[device]}))
    peak = watch_peak([*CPU, *devices])
    assert peak() == 0
    highest.update({devices[0]: 150, devices[1]: 270})
    assert peak() == 120
