"""The files that a study leaves, written again after every measurement, so that a kill loses nothing."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from studies.gpu import STARTED
from vistrim._utils.environment import stamp
from vistrim._utils.files import write_whole


class OutOfTimeError(Exception):
    """The time of a study is up."""


class Deadline:
    """A moment after which nothing new is begun."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


def since_start(seconds: float) -> float:
    """What is left of so many seconds, of which imports have taken some."""
    return seconds - (time.monotonic() - STARTED)


def environment(device: str, commit: str | None) -> dict[str, Any]:
    """The stamp of the package, the GPU, and the commit where the code was copied without its history."""
    found = stamp()
    found["commit"] = found["commit"] or commit
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "accelerator_memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": _driver(),
        }
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(found, indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    """What an earlier run of the same study has left; empty if there was none."""
    return json.loads(path.read_text()) if path.exists() else {}


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
