"""Files that a method needs besides its parameters: trained weights and schedules, each valid for one model."""

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
"""Folder of trained parts inside a model's folder. Other tools load every safetensors file next to the weights."""


def part_path(model: Path, method: str) -> Path:
    """Return the path of a method's trained part in a model's folder.

    Parameters
    ----------
    model : Path
        Folder of the model.
    method : str
        Name of the method.

    Returns
    -------
    Path
        The file, whether or not it exists.
    """
    return model / FOLDER / f"{method}.safetensors"


@dataclass(frozen=True, eq=False)
class TrainedPart:
    """Weights of a network that belongs to a method.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Weights by name, on the CPU, in the dtype of the file.
    settings : dict of str to str
        Metadata of the file: method, model and settings of the training.
    """

    tensors: dict[str, Tensor]
    settings: dict[str, str]


def save_part(
    path: Path, method: str, model: ModelFacts, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write a trained part, together with the model that it was made for.

    The file is replaced as a whole: an interrupted write leaves the previous file.

    Parameters
    ----------
    path : Path
        File to write.
    method : str
        Name of the method.
    model : ModelFacts
        Model that the part was trained for.
    tensors : mapping of str to Tensor
        Weights by name.
    settings : mapping of str to object
        Settings to store with them, as text.
    """
    notes = {"method": method, "model": model.name, "layers": model.decoder.layers, "hidden": model.decoder.hidden}
    metadata = {name: str(value) for name, value in {**notes, **settings}.items()}
    save_whole(path, {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)


def load_part(given: str | None, method: str, model: ModelFacts, how: str) -> TrainedPart:
    """Load a method's trained part.

    Parameters
    ----------
    given : str or None
        The file. None: `part_path` in the model's own folder.
    method : str
        Name of the method.
    model : ModelFacts
        Model that the part must have been made for.
    how : str
        How such a part is made, for errors: a command between backticks, and where it runs.

    Returns
    -------
    TrainedPart
        Weights and settings.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or if it belongs to another method or model.
    """
    own = None if model.folder is None else part_path(model.folder, method)
    path = Path(given).expanduser() if given is not None else own
    if path is None or not path.is_file():
        missing = f"there is no file {given}" if given is not None else f"there is none in {FOLDER}/ beside its weights"
        raise ValueError(f"{method} needs a file made for {_named(model)}, and {missing}: make one with {how}")
    stat = path.stat()
    part = _read(path, (stat.st_mtime_ns, stat.st_ino))
    if part.settings.get("method") != method:
        raise ValueError(f"{path} is no file of {method}: make one with {how}")
    check_made_for(str(path), part.settings, model, how)
    return part


def check_made_for(what: str, notes: Mapping[str, Any], model: ModelFacts, how: str) -> None:
    """Refuse a file that was made for another model.

    Parameters
    ----------
    what : str
        Name of the file, for the error.
    notes : mapping of str to object
        The model that the file was made for: its name ("model"), its number of decoder layers ("layers") and, if
        known, its hidden size ("hidden").
    model : ModelFacts
        Model that the file is to be used with.
    how : str
        How such a file is made, for the error.

    Raises
    ------
    ValueError
        If the name or a size differs.
    """
    sizes = {"layers": model.decoder.layers, "hidden": model.decoder.hidden}
    differing = [f"{notes.get('model')!r}"] if notes.get("model") != model.name else []
    differing += [f"{notes[key]} {key}" for key, size in sizes.items() if key in notes and str(notes[key]) != str(size)]
    if differing:
        raise ValueError(
            f"{what} was made for a model with {' and '.join(differing)}, and this one is {_named(model)} "
            f"({sizes['layers']} layers, hidden size {sizes['hidden']}): make one for it with {how}"
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
