"""Schedule files: keep rates that were fitted to one model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.artifacts import check_made_for
from vistrim.methods.base.keep_rates import KeepRates, Rows
from vistrim.methods.base.schedule_fields import FORMAT, read_fields

_KINDS: dict[str, type] = {
    "method": str,
    "model": str,
    "layers": int,
    "rates": list,
    "rows": str,
    "made_with": dict,
    "vistrim": str,
}


@dataclass(frozen=True)
class Schedule:
    """Contents of a schedule file: keep rates and their origin.

    Attributes
    ----------
    method : str
        Name of the method that the rates are for.
    model : str
        Name of the checkpoint that the rates were fitted to.
    layers : int
        Number of decoder layers of that checkpoint.
    rates : tuple of float
        Share of the visual tokens in each layer, see `KeepRates`.
    rows : {"last", "prompt"}
        Tokens whose attention ranks the visual tokens, see `KeepRates`.
    made_with : mapping of str to object
        Command, settings, environment and result of the search. Empty if the file was written by hand.
    vistrim : str
        Version of vistrim that ran the search. Empty if the file was written by hand.
    """

    method: str
    model: str
    layers: int
    rates: tuple[float, ...]
    rows: Rows
    made_with: Mapping[str, Any]
    vistrim: str

    def content(self) -> dict[str, Any]:
        """Return the contents as they are written to the file.

        Returns
        -------
        dict of str to object
            The attributes and the version of the format, ready for JSON.
        """
        return {"format": FORMAT, **asdict(self), "rates": list(self.rates)}

    def write(self, path: Path) -> None:
        """Write the file.

        It is replaced as a whole: an interrupted write leaves the previous file.

        Parameters
        ----------
        path : Path
            File to write.
        """
        write_whole(path, json.dumps(self.content(), indent=2) + "\n")


def read_schedule(path: Path, method: str | None = None) -> Schedule:
    """Read a schedule file.

    Parameters
    ----------
    path : Path
        The file.
    method : str, optional
        Method that the schedule has to be for. None: any with keep rates.

    Returns
    -------
    Schedule
        Its contents.

    Raises
    ------
    ValueError
        If the file cannot be read, is not a schedule of this format, belongs to another method, or is damaged.
    """
    command = "vistrim calibrate" if method is None else f"vistrim calibrate {method}"
    values = read_fields(path, _KINDS, command, method)
    # JSON does not distinguish 1 from 1.0.
    if not all(type(rate) in (int, float) for rate in values["rates"]):
        raise ValueError(f"{path} is damaged (rates): make it again")
    schedule = Schedule(**values | {"rates": tuple(map(float, values["rates"]))})
    if len(schedule.rates) != schedule.layers:
        raise ValueError(f"{path} is damaged ({len(schedule.rates)} rates for {schedule.layers} layers): make it again")
    try:
        KeepRates(schedule.rates, schedule.rows)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return schedule


def load_rates(given: str, method: str, model: ModelFacts) -> KeepRates:
    """Load keep rates from a schedule file.

    Parameters
    ----------
    given : str
        The file.
    method : str
        Name of the method that the rates must be for.
    model : ModelFacts
        Model that the rates must have been fitted to.

    Returns
    -------
    KeepRates
        The rates as a method.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or if it belongs to another method or model.
    """
    path = Path(given).expanduser()
    command = f"vistrim calibrate {method}"
    if not path.is_file():
        raise ValueError(f"there is no schedule {given}: check the path, or make one with `{command}`")
    schedule = read_schedule(path, method)
    check_made_for(str(path), {"model": schedule.model, "layers": schedule.layers}, model, f"`{command}`")
    return KeepRates(schedule.rates, schedule.rows)
