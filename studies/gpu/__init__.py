"""Correctness, speed and a profile on one CUDA device."""

import time

STARTED = time.monotonic()
"""When a part of the study was started, before anything large was imported."""
