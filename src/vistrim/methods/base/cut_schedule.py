"""Schedule files of ST³: cuts, ranking and annealing that were fitted to one model at one budget."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import Decay
from vistrim.methods.base.artifacts import FOLDER, check_made_for
from vistrim.methods.base.cuts import Cuts
from vistrim.methods.base.method import DecodeRows
from vistrim.methods.base.schedule_fields import FORMAT, read_fields

METHOD = "st3"
COMMAND = "vistrim calibrate st3"
_KINDS: dict[str, type] = {
    "method": str,
    "model": str,
    "shape": dict,
    "budget": str,
    "cuts": list,
    "ranking": dict,
    "annealing": dict,
    "made_with": dict,
    "vistrim": str,
}


@dataclass(frozen=True)
class Annealing:
    """Annealing over generated tokens; the fields are the parameters of `vistrim.methods.VTA`."""

    decay: Decay
    horizon: int
    floor: float | tuple[float, ...]
    interval: int
    decode_rows: DecodeRows = "token"
    spread: float = 0.0


@dataclass(frozen=True)
class CutSchedule:
    """Contents of a schedule file of ST³.

    Attributes
    ----------
    model : str
        Name of the checkpoint that the schedule was fitted to.
    shape : mapping of str to int
        Sizes of that checkpoint: "layers" and "hidden" of the decoder, "visual_tokens" of a calibration prompt (mean).
    budget : str
        The budget, such as "flops=0.5".
    cuts : Cuts
        Layers, shares and ranking.
    annealing : Annealing
        Annealing over generated tokens.
    made_with : mapping of str to object
        Command, settings, environment and evidence of the search. Empty if the file was written by hand.
    vistrim : str
        Version of vistrim that ran the search.
    """

    model: str
    shape: Mapping[str, int]
    budget: str
    cuts: Cuts
    annealing: Annealing
    made_with: Mapping[str, Any]
    vistrim: str

    @property
    def method(self) -> str:
        """Name of the method that the schedule is for."""
        return METHOD

    def content(self) -> dict[str, Any]:
        """Return the contents of the file, ready for JSON."""
        cuts = self.cuts
        return {
            "format": FORMAT,
            "method": METHOD,
            "model": self.model,
            "shape": dict(self.shape),
            "budget": self.budget,
            "cuts": [{"layer": layer, "keep": share} for layer, share in zip(cuts.layers, cuts.shares, strict=True)],
            "ranking": {"rows": cuts.rows, "averaged": cuts.averaged, "heads": cuts.heads},
            "annealing": asdict(self.annealing),
            "made_with": dict(self.made_with),
            "vistrim": self.vistrim,
        }

    def write(self, path: Path) -> None:
        """Write the file. It is replaced as a whole: an interrupted write leaves the previous file."""
        write_whole(path, json.dumps(self.content(), indent=2) + "\n")


def read_cut_schedule(path: Path) -> CutSchedule:
    """Read a schedule file of ST³.

    Raises
    ------
    ValueError
        If the file cannot be read, is not a schedule of ST³ in this format, or is damaged. The message names the fix.
    """
    values = read_fields(path, _KINDS, COMMAND, METHOD)
    try:
        return CutSchedule(
            model=values["model"],
            shape={name: int(size) for name, size in values["shape"].items()},
            budget=values["budget"],
            cuts=Cuts(
                tuple(int(cut["layer"]) for cut in values["cuts"]),
                tuple(float(cut["keep"]) for cut in values["cuts"]),
                **values["ranking"],
            ),
            annealing=_annealing(**values["annealing"]),
            made_with=values["made_with"],
            vistrim=values["vistrim"],
        )
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): make it again, with `{COMMAND}`") from error


def _annealing(*, floor: float | list[float], **others: Any) -> Annealing:
    # JSON has no tuples.
    return Annealing(floor=tuple(floor) if isinstance(floor, list) else floor, **others)


def load_cut_schedule(given: str, model: ModelFacts) -> CutSchedule:
    """Load a schedule file of ST³ for a model.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or belongs to another method or model.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no schedule {given}: check the path, or make one with `{COMMAND} --out FILE`")
    found = read_cut_schedule(path)
    check_made_for(str(path), {"model": found.model, **found.shape}, model, f"`{COMMAND}`")
    return found


def schedule_path(folder: Path, budget: str) -> Path:
    """Return the path of a schedule of ST³ in a model's folder.

    Parameters
    ----------
    folder : Path
        Folder of the model.
    budget : str
        Such as "flops=0.5".

    Returns
    -------
    Path
        The file, whether or not it exists.
    """
    return folder / FOLDER / f"{METHOD}-{budget.replace('=', '-')}.json"


def schedules_beside(model: ModelFacts) -> list[CutSchedule]:
    """Load the schedules of ST³ in the folder of a model.

    Returns
    -------
    list of CutSchedule
        One or more, in the order of their file names.

    Raises
    ------
    ValueError
        If there is none, or one of them is damaged or belongs to another model.
    """
    paths = [] if model.folder is None else sorted((model.folder / FOLDER).glob(f"{METHOD}-*.json"))
    if not paths:
        name = repr(model.name) if model.name else "this model"
        raise ValueError(
            f"there is no schedule of {METHOD} for {name} in {FOLDER}/ beside its weights: make one with "
            f"`{COMMAND} --budget flops=0.5 --out FILE` and use {METHOD}:schedule=FILE, or leave schedule out"
        )
    return [load_cut_schedule(str(path), model) for path in paths]
