"""Routers for the tiny models."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tests import tiny
from vistrim.architectures import discover
from vistrim.methods.base.artifacts import save_part

WIDTH = 8


def random_routers(seed: int = 0) -> dict[str, Tensor]:
    """Routers that some samples exit at and others do not; every other layer's are silent."""
    generator = torch.Generator().manual_seed(seed)
    hidden = tiny.shared().config.text_config.hidden_size
    shapes = {"w1": (WIDTH, 2 * hidden), "w2": (2, WIDTH)}
    return {
        f"layers.{layer}.{name}": torch.randn(shape, generator=generator) * ((layer + seed) % 2)
        for layer in range(tiny.DEPTH - 1)
        for name, shape in shapes.items()
    }


def save(path: Path, tensors: dict[str, Tensor]) -> str:
    save_part(path, "dyvte", discover(tiny.shared()).facts, tensors, {})
    return str(path)


@cache
def saved(seed: int = 0) -> str:
    """A file of random routers, as long as the process runs."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return save(folder / "routers.safetensors", random_routers(seed))
