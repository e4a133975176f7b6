"""Methods from the command line: ``--method``, ``--set`` and ``--preset``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from vistrim.cli.error_lines import WrongUsageError
from vistrim.errors import MethodError
from vistrim.methods import Method
from vistrim.methods.base import notation


def parse_method(spec: str, settings: Sequence[str] = (), preset: str | None = None) -> Method:
    """Build a method.

    Parameters
    ----------
    spec : str
        In the notation; see `vistrim.methods.base.notation`.
    settings : sequence of str
        Further parameters as ``"name=value"``; they override those in ``spec``.
    preset : str, optional
        Start from this preset of the method instead of its default values.

    Raises
    ------
    WrongUsageError
        If the method, preset or parameter does not exist, or a value has the wrong type or is out of range.
    """
    try:
        return notation.parse_method(spec, dict(map(notation.read_setting, settings)), preset)
    except (ValueError, MethodError) as error:
        raise WrongUsageError(str(error)) from error


def default_method(model: Any) -> Method:
    """Return the method of a command without ``--method``: ST³, with the schedule beside the model if there is one."""
    # torch and transformers take seconds to import: not for --help.
    from vistrim.engine import describe
    from vistrim.methods.st3 import default_for

    return default_for(describe(model).facts)


def note_schedules(notations: Iterable[str], model: Any) -> None:
    """Print a note on standard error if st3 runs in its closed form on a model with fitted schedules beside it."""
    from vistrim.engine import describe
    from vistrim.methods.st3 import ST3, default_for

    facts = describe(model).facts
    if str(ST3()) in notations and (fitted := default_for(facts)) != ST3():
        typer.echo(f"note: {facts.name} has fitted schedules of st3; {fitted} uses them", err=True)


def parse_methods(specs: Sequence[str], named: Mapping[str, Method | None]) -> dict[str, Method]:
    """Build several methods, by label.

    Parameters
    ----------
    specs : sequence of str
        Methods in the notation, or names in ``named``.
    named : Mapping
        Methods of special names; names with None are left out.

    Raises
    ------
    WrongUsageError
        See `parse_method`; also if two are the same method.
    """
    # A label goes into a row of a table.
    labels = [" ".join(line.strip() for line in spec.strip().splitlines()) for spec in specs]
    found = {label: named[label] if label in named else parse_method(label) for label in labels}
    methods = {label: method for label, method in found.items() if method is not None}
    by_notation: dict[str, str] = {}
    for label, method in methods.items():
        other = by_notation.setdefault(str(method), label)
        if other != label:
            raise WrongUsageError(f"--method {label} and {other} are the same: leave one out")
    return methods
