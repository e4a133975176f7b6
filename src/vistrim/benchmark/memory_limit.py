"""Refuse subjects that do not fit into memory, and suggest the largest scaled versions that do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from vistrim.benchmark import memory
from vistrim.benchmark.memory import Needs, gib
from vistrim.benchmark.subject import Wanted
from vistrim.errors import BenchmarkError

Choices = Mapping[str, Sequence[int]]


def check_memory(wanted: Wanted, device: torch.device, needed: Callable[[Wanted], Needs], choices: Choices) -> None:
    """Refuse a subject that does not fit; nothing is checked if the free memory is unknown.

    Parameters
    ----------
    wanted : Wanted
        The requested subject.
    device : torch.device
        Its device.
    needed : callable
        Returns the needs of a version.
    choices : mapping of str to sequence of int
        Possible smaller values of its attributes; see `that_fit`.

    Raises
    ------
    BenchmarkError
        If the subject does not fit; the message has the needed and the free memory, and versions that fit.
    """
    free = memory.free_bytes(device)
    if free is None or (need := needed(wanted)).total <= free:
        return
    fitting = that_fit(wanted, choices, lambda version: needed(version).total <= free)
    fix = "use " + ", or ".join(options(wanted, version) for version in fitting) if fitting else "use another machine"
    raise BenchmarkError(f"{wanted.model} needs {need}, and {device} has {gib(free)} GiB free: {fix}")


def that_fit(wanted: Wanted, choices: Choices, fits: Callable[[Wanted], bool]) -> list[Wanted]:
    """Find scaled versions that fit.

    Parameters
    ----------
    wanted : Wanted
        The subject that does not fit.
    choices : mapping of str to sequence of int
        Values below the present one that an attribute of ``wanted`` may take, in ascending order.
    fits : callable
        Whether a version fits; a smaller value never needs more.

    Returns
    -------
    list of Wanted
        For each attribute alone, the version with the largest value that fits. If there is none, one version in which
        several attributes are smaller; empty if not even the smallest version fits.
    """
    alone = [found for name, values in choices.items() if (found := _largest(wanted, name, values, fits)) is not None]
    if alone:
        return alone
    for name, values in choices.items():
        if not values:
            continue
        found = _largest(wanted, name, values, fits)
        if found is not None:
            return [found]
        wanted = _with(wanted, name, values[0])
    return []


def options(wanted: Wanted, scaled: Wanted) -> str:
    """The differences between two versions, as options of the command line."""
    names = ("layers", "hidden", "distinct_layers", "batch")
    different = [name for name in names if getattr(wanted, name) != getattr(scaled, name)]
    return " ".join(f"--{name.replace('_', '-')} {getattr(scaled, name)}" for name in different)


def _largest(wanted: Wanted, name: str, values: Sequence[int], fits: Callable[[Wanted], bool]) -> Wanted | None:
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if fits(_with(wanted, name, values[middle])):
            low = middle + 1
        else:
            high = middle
    return _with(wanted, name, values[low - 1]) if low else None


def _with(wanted: Wanted, name: str, value: int) -> Wanted:
    changed: dict[str, Any] = {name: value}
    return replace(wanted, **changed)
