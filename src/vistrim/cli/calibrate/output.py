"""The output file of a calibration: checked before any work; schedules are printed at the end."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import typer
from rich.table import Table

from vistrim._utils.store import differences
from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.terminal_tables import table_console
from vistrim.methods.base.schedule_file import Schedule


class Fitted(Protocol):
    """A schedule of any method."""

    @property
    def method(self) -> str:
        """Name of the method."""

    @property
    def made_with(self) -> Mapping[str, Any]:
        """Settings and results of its search."""


FittedT = TypeVar("FittedT", bound=Fitted)


def finished(
    out: Path, method: str, settings: Mapping[str, Any], force: bool, read: Callable[[Path], FittedT]
) -> FittedT | None:
    """Return the existing schedule if it is the requested one. Otherwise, the search has to run.

    Parameters
    ----------
    out : Path
        The schedule file.
    method : str
        Requested method.
    settings : mapping
        Requested settings.
    force : bool
        Whether an existing file may be replaced.
    read : callable
        Reads a schedule file.

    Raises
    ------
    WrongUsageError
        If the file cannot be written, or exists with other content.
    """
    _check_writable(out)
    if not out.exists() or force:
        return None
    try:
        there = read(out)
    except ValueError as error:
        raise WrongUsageError(f"{error}; or give another --out, or --force to replace it") from error
    before = {"method": there.method, **there.made_with.get("settings", {})}
    if differing := differences(before, {"method": method, **settings}):
        raise WrongUsageError(
            f"{out} holds another schedule ({differing}): give another --out, or --force to replace it"
        )
    return there


def check_new_file(out: Path, force: bool) -> None:
    """Refuse a file that cannot be written, or that exists without ``force``.

    Raises
    ------
    WrongUsageError
        If so; the message names the fix.
    """
    _check_writable(out)
    if out.exists() and not force:
        raise WrongUsageError(f"{out} already exists: give another --out, or --force to replace it")


def _check_writable(out: Path) -> None:
    if not out.parent.is_dir():
        raise WrongUsageError(f"there is no directory '{out.parent}' for {out.name}: create it first")
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise WrongUsageError(f"'{out}' is not writable: choose another file")


def show(schedule: Schedule, out: Path, as_json: bool) -> None:
    """Print a schedule: as a table, or its file."""
    if as_json:
        typer.echo(json.dumps(schedule.content()))
        return
    console = table_console(markup=False)
    table = Table("layers", "visual tokens kept")
    for first, last, rate in steps(schedule.rates):
        table.add_row(f"{first}" if first == last else f"{first} to {last}", f"{100 * rate:.2f} %")
    console.print(table)
    made = schedule.made_with
    console.print(
        f"{100 * made['mean_rate']:.1f} % of the tokens on average; {made['settings']['objective']} "
        f"{100 * made['performance']:.2f} %, untouched {100 * made['untouched']:.2f} %; "
        f"{made['evaluations']} evaluations of {made['number_of_questions']} questions"
    )
    console.print(f"use it with --method {schedule.method}:schedule={out}", soft_wrap=True)


def steps(rates: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """First layer, last layer and rate of each run of equal rates."""
    starts = [layer for layer in range(len(rates)) if layer == 0 or rates[layer] != rates[layer - 1]]
    return [(first, after - 1, rates[first]) for first, after in zip(starts, [*starts[1:], len(rates)], strict=True)]
