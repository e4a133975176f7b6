"""The training log: one line of JSON per entry, and a short version on the terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch


class Log:
    """Appends to ``log.jsonl`` and prints, or does neither where ``quiet``."""

    def __init__(self, folder: Path, quiet: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.quiet = quiet
        self.path = folder / "log.jsonl"
        self.start = time.monotonic()

    def note(self, phase: str, **entry: Any) -> None:
        """Write one entry; numbers are rounded, tensors read."""
        if self.quiet:
            return
        plain = {"phase": phase, "seconds": round(time.monotonic() - self.start, 1)} | {
            name: _plain(value) for name, value in entry.items()
        }
        with self.path.open("a") as file:
            file.write(json.dumps(plain) + "\n")
        print(" ".join(f"{name}={value}" for name, value in plain.items()), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.item()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
