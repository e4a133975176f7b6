"""Methods from the command line: ``st3``, ``st3:ratio=0.5,stride=2`` and ``--set ratio=0.5``."""

import types
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vistrim.cli.errors import WrongUsageError
from vistrim.methods import Method, get_method


def parse_method(spec: str, settings: Sequence[str] = (), preset: str | None = None) -> Method:
    """Build a method.

    Parameters
    ----------
    spec : str
        Name, or name and parameters as in ``"st3:ratio=0.5,stride=2"``: the notation in which methods print. One of the
        parameters may be ``preset``.
    settings : sequence of str
        Further parameters as ``"name=value"``; they win over those in ``spec``.
    preset : str, optional
        Start from this preset of the method instead of its default values.

    Raises
    ------
    WrongUsageError
        If there is no such method, preset or parameter, or a value is of the wrong type or out of range.
    """
    name, _, parameters = spec.partition(":")
    given = _pairs(parameters.split(",") if parameters else []) | _pairs(settings)
    in_spec = given.pop("preset", None)
    preset = in_spec if preset is None else preset
    try:
        cls = type(get_method(name))
        hints = get_type_hints(cls)
        known = {field.name for field in fields(cls)}
        values = {key: _typed(key, text, hints[key]) if key in known else text for key, text in given.items()}
        method = get_method(name, **values)
        if preset is None:
            return method
        if not hasattr(method, "preset"):
            raise WrongUsageError(f"{name} has no presets: leave preset {preset} away, or use --method st3")
        return replace(method.preset(preset), **values)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise WrongUsageError(f"{setting!r} is no parameter: write name=value, for example ratio=0.5")
        pairs[key.strip()] = value.strip()
    return pairs


def _typed(name: str, text: str, hint: Any) -> Any:
    """Read a value as the first fitting type: "64" as int, "0.5" as float, "none" as None."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if option is type(None) and text.lower() == "none":
            return None
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
        if option is str or get_origin(option) is Literal:
            return text
    raise WrongUsageError(f"{name}={text}: must be {' or '.join(_described(option) for option in options)}")


def _described(option: Any) -> str:
    return {int: "a whole number", float: "a number", type(None): "none"}.get(option, str(option))
