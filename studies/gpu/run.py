"""All parts of the study, each in a process of its own with a time of its own, one after the other.

``python -m studies.gpu.run --device cuda --out FOLDER --seconds 330``. A part that crashes or hangs ends alone; what it
has measured is in its file. Correctness goes on behind a crash, without the family that it was at.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from studies.gpu.results import Deadline

PARTS = {"correctness": 95.0, "headline": 170.0, "profiling": 60.0}
"""Seconds of each part, as a share of all."""
ENDING = 8.0
"""Seconds that a part has to come to an end by itself, before it is killed."""
TRIES = {"correctness": 4}


def run(options: argparse.Namespace) -> None:
    """Give each part its share of what is left."""
    deadline, left = Deadline(options.seconds), dict(PARTS)
    for part in PARTS:
        if part not in options.parts:
            left.pop(part)
            continue
        share = deadline.left * left[part] / sum(left[name] for name in left if name in options.parts)
        left.pop(part)
        own = Deadline(share)
        for _ in range(TRIES.get(part, 1)):
            if own.left < ENDING:
                break
            if _part(part, own.left, options) == 0:
                break


def _part(part: str, seconds: float, options: argparse.Namespace) -> int | None:
    command = [sys.executable, "-m", f"studies.gpu.{part}", "--device", options.device, "--out", str(options.out)]
    command += ["--seconds", f"{max(1.0, seconds - ENDING):.1f}"]
    command += ["--commit", options.commit] if options.commit else []
    command += ["--tiny"] if options.tiny and part != "correctness" else []
    print(f"--- {part}: {seconds:.0f} s", flush=True)
    began = time.monotonic()
    try:
        code = subprocess.run(command, check=False, timeout=max(1.0, seconds)).returncode
    except subprocess.TimeoutExpired:
        code = None
    print(f"--- {part} ended with {code} after {time.monotonic() - began:.0f} s", flush=True)
    return code


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--commit", help="of the code, where it was copied without its history")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the study out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run(options)


if __name__ == "__main__":
    main()
