"""A shipped model as a difference to the model that it was tuned from, assembled once on the user's machine.

Weights hardly compress, and neither does an exact difference of them. Differences are therefore rounded, in each tensor
to a fraction of their standard deviation. `training.reference.pack_difference` makes them.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vistrim.errors import LoadError
from vistrim.reference_lm import cache_folder, is_whole, move_into_place

FILE = "difference.safetensors"
WEIGHTS = "model.safetensors"
FORMAT = 1
"""Version of the assembled folder. Incremented if the same files yield other weights."""


def assembled(folder: Path, base: Path) -> Path:
    """Return the folder of the whole model in the cache, and create it if it does not exist.

    Parameters
    ----------
    folder : Path
        Folder of the tuned model: all its files, with the difference in place of the weights.
    base : Path
        Folder of the model that it was tuned from.

    Returns
    -------
    Path
        Folder for ``from_pretrained``, with the same name as ``folder``.

    Raises
    ------
    LoadError
        If the cache cannot be written.
    """
    digest = hashlib.sha256(str(FORMAT).encode())
    for path in (base / WEIGHTS, *sorted(path for path in folder.rglob("*") if path.is_file())):
        digest.update(path.name.encode() + path.read_bytes())
    place = cache_folder() / f"{folder.name}-{digest.hexdigest()[:16]}"
    # A trained part of a method knows its model by the name of the folder.
    there = place / folder.name
    if is_whole(there):
        return there
    aside = place / f"{folder.name}.{uuid4().hex}.partial"
    try:
        place.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, aside, ignore=shutil.ignore_patterns(FILE))
        save_file(tuned(load_file(base / WEIGHTS), *read(folder / FILE)), aside / WEIGHTS, metadata={"format": "pt"})
        move_into_place(aside, there)
    except (OSError, SafetensorError) as error:
        raise LoadError(
            f"{folder.name} is stored in {place.parent}, which cannot be written ({error}): set XDG_CACHE_HOME to a "
            "folder with 10 MB of free space"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return there


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Read the rounded differences of the tensors that differ, and the step of each."""
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
    whole = load_file(path)
    return whole, {name: float(notes[name]) for name in whole}


def rounded(base: Tensor, other: Tensor, levels: int) -> tuple[Tensor, float]:
    """Round a difference to steps of its standard deviation divided by ``levels``.

    Parameters
    ----------
    base, other : Tensor
        Weights of the two models, of the same shape.
    levels : int
        Steps in a standard deviation.

    Returns
    -------
    whole : Tensor
        Number of steps, int8.
    step : float
        Size of a step.

    Raises
    ------
    ValueError
        If a difference is too large for int8.
    """
    difference = other.double() - base.double()
    step = float(difference.std()) / levels
    whole = (difference / step).round()
    if float(whole.abs().max()) > 127:
        raise ValueError(f"a difference is {float(whole.abs().max()):.0f} steps: use fewer levels")
    return whole.to(torch.int8), step


def tuned(base: dict[str, Tensor], whole: dict[str, Tensor], steps: dict[str, float]) -> dict[str, Tensor]:
    """Add rounded differences to weights."""
    # In float64, all machines round to the same weights.
    moved = {
        name: (base[name].double() + steps[name] * each.double()).to(base[name].dtype) for name, each in whole.items()
    }
    return base | moved
