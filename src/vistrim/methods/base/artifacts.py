"""Files that a method needs beside its parameters: trained weights and searched schedules, made for one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vistrim._utils.files import save_whole
from vistrim.core.model_facts import ModelFacts

FOLDER = "vistrim"
"""Folder of trained parts beside a model's weights; other tools load every safetensors file next to those."""


def part_path(model: Path, method: str) -> Path:
    """Where a method looks for its trained part in a model's folder."""
    return model / FOLDER / f"{method}.safetensors"


@dataclass(frozen=True, eq=False)
class TrainedPart:
    """Weights of a method's own network.

    Attributes
    ----------
    tensors : dict of str to Tensor
        On the CPU, in the type they were saved in.
    settings : dict of str to str
        What was noted when they were saved.
    """

    tensors: dict[str, Tensor]
    settings: dict[str, str]


def save_part(
    path: Path, method: str, model: ModelFacts, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write a trained part, with the model that it was made for; a kill leaves an old file or this one."""
    notes = {"method": method, "model": model.name, "layers": model.decoder.layers, "hidden": model.decoder.hidden}
    metadata = {name: str(value) for name, value in {**notes, **settings}.items()}
    save_whole(path, {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)


def load_part(given: str | None, method: str, model: ModelFacts, command: str) -> TrainedPart:
    """Load a method's trained part.

    Parameters
    ----------
    given : str or None
        The file; None: `part_path` in the model's own folder.
    method : str
        The method's name.
    model : ModelFacts
        The model that it has to be made for.
    command : str
        What trains one.

    Raises
    ------
    ValueError
        If there is no such file, or it is another method's or another model's; with the fix.
    """
    own = None if model.folder is None else part_path(model.folder, method)
    path = Path(given).expanduser() if given is not None else own
    if path is None or not path.is_file():
        missing = f"there is no file {given}" if given is not None else f"there is none in {FOLDER}/ beside its weights"
        raise ValueError(f"{method} needs a file made for {_named(model)}, and {missing}: make one with `{command}`")
    stat = path.stat()
    part = _read(path, (stat.st_mtime_ns, stat.st_ino))
    if part.settings.get("method") != method:
        raise ValueError(f"{path} is no file of {method}: make one with `{command}`")
    check_made_for(str(path), part.settings, model, command)
    return part


def check_made_for(what: str, notes: Mapping[str, Any], model: ModelFacts, command: str) -> None:
    """Refuse what was made for another model.

    Parameters
    ----------
    what : str
        Named in the error.
    notes : mapping
        "model" (a name), "layers" and perhaps "hidden" of the model that it was made for.
    model : ModelFacts
        The model that it is to be used with.
    command : str
        What makes one.

    Raises
    ------
    ValueError
        If name or sizes differ.
    """
    sizes = {"layers": model.decoder.layers, "hidden": model.decoder.hidden}
    differing = [f"{notes.get('model')!r}"] if notes.get("model") != model.name else []
    differing += [f"{notes[key]} {key}" for key, size in sizes.items() if key in notes and str(notes[key]) != str(size)]
    if differing:
        raise ValueError(
            f"{what} was made for a model with {' and '.join(differing)}, and this one is {_named(model)} "
            f"({sizes['layers']} layers, hidden size {sizes['hidden']}): make one for it with `{command}`"
        )


def _named(model: ModelFacts) -> str:
    return repr(model.name) if model.name else "this model"


@lru_cache(maxsize=2)
def _read(path: Path, version: tuple[int, int]) -> TrainedPart:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # The handle itself cannot be iterated over.
            return TrainedPart({name: file.get_tensor(name) for name in names}, dict(file.metadata() or {}))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it or make it again") from error
