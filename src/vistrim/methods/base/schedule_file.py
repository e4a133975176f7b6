"""Files of keep rates that were searched for one model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vistrim._utils.files import write_whole
from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.artifacts import check_made_for
from vistrim.methods.base.keep_rates import KeepRates, Rows

FORMAT = 1
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
    """Keep rates, and where they come from.

    Attributes
    ----------
    method : str
        The method that they are for.
    model : str
        Name of the checkpoint that they were searched on.
    layers : int
        Its number of decoder layers.
    rates : tuple of float
        One for each layer; see `KeepRates`.
    rows : {"last", "prompt"}
        What ranks; see `KeepRates`.
    made_with : mapping
        Command, settings, environment and result of the search; empty if it was written by hand.
    vistrim : str
        Version that searched; empty if none did.
    """

    method: str
    model: str
    layers: int
    rates: tuple[float, ...]
    rows: Rows
    made_with: Mapping[str, Any]
    vistrim: str

    def content(self) -> dict[str, Any]:
        """What the file says."""
        return {"format": FORMAT, **asdict(self), "rates": list(self.rates)}

    def write(self, path: Path) -> None:
        """Write the file; a kill leaves an old one or this one."""
        write_whole(path, json.dumps(self.content(), indent=2) + "\n")


def read_schedule(path: Path) -> Schedule:
    """Read a schedule file.

    Raises
    ------
    ValueError
        If it is no such file, or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise ValueError(f"{path} is no schedule, or is damaged ({error}): make it again") from error
    if not isinstance(values, dict) or "format" not in values:
        raise ValueError(f"{path} is no schedule: give a file that `vistrim calibrate` wrote")
    if values.pop("format") != FORMAT:
        raise ValueError(f"{path} is a schedule of another format than {FORMAT}: make it again with this version")
    # What a schedule written by hand need not say.
    values = {"made_with": {}, "vistrim": "", **values}
    wrong = [name for name, kind in _KINDS.items() if type(values.get(name)) is not kind]
    if wrong or values.keys() != _KINDS.keys():
        odd = ", ".join(wrong or sorted(values.keys() - _KINDS.keys()))
        raise ValueError(f"{path} is damaged ({odd}): make it again")
    # JSON has one kind of number.
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
    """Keep rates out of a schedule file.

    Parameters
    ----------
    given : str
        The file.
    method : str
        The method that they have to be for.
    model : ModelFacts
        The model that they have to be made for.

    Raises
    ------
    ValueError
        If there is no such file, or it is damaged, another method's or another model's; with the fix.
    """
    path = Path(given).expanduser()
    command = f"vistrim calibrate {method}"
    if not path.is_file():
        raise ValueError(f"there is no schedule {given}: check the path, or make one with `{command}`")
    schedule = read_schedule(path)
    if schedule.method != method:
        raise ValueError(
            f"{path} is a schedule for {schedule.method}: use it with --method {schedule.method}, "
            f"or make one with `{command}`"
        )
    check_made_for(str(path), {"model": schedule.model, "layers": schedule.layers}, model, command)
    return KeepRates(schedule.rates, schedule.rows)
