"""Environment of a measurement, stored with every result."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import transformers

from vistrim._version import __version__


def stamp() -> dict[str, Any]:
    """Collect the machine, versions and commit of a measurement."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "accelerator": _accelerator(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "vistrim": __version__,
        "commit": _commit(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def command_line() -> str:
    """Return the current ``vistrim`` command line, quoted for a shell."""
    return shlex.join(["vistrim", *sys.argv[1:]])


def _memory_gib() -> float | None:
    # Not available on Windows.
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _accelerator() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    # An installed package may be inside an unrelated repository.
    return _git("describe", "--always", "--dirty") if _git("ls-files", Path(__file__).name) else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None
