"""Methods from the command line: ``st3``, ``st3:ratio=0.5,stride=2``, ``fastervlm+vta`` and ``--set ratio=0.5``."""

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vistrim.cli.error_lines import WrongUsageError
from vistrim.loading import NamedModel
from vistrim.methods import Method, compose, get_method
from vistrim.methods.base.method import ModelLoader

BETWEEN_METHODS = re.compile(r"\+(?=\s*[A-Za-z])")
"""A plus that is no part of a number such as 1e+3."""


def parse_method(spec: str, settings: Sequence[str] = (), preset: str | None = None) -> Method:
    """Build a method.

    Parameters
    ----------
    spec : str
        Name, or name and parameters as in ``"st3:ratio=0.5,stride=2"``: the notation in which methods print. One of the
        parameters may be ``preset``. Several with a plus between them are composed.
    settings : sequence of str
        Further parameters as ``"name=value"``; they win over those in ``spec``.
    preset : str, optional
        Start from this preset of the method instead of its default values.

    Raises
    ------
    WrongUsageError
        If there is no such method, preset or parameter, or a value is of the wrong type or out of range.
    """
    specs = BETWEEN_METHODS.split(spec)
    if len(specs) > 1:
        if settings or preset is not None:
            raise WrongUsageError(
                f"parameters beside the composition {spec} could belong to any part: write them behind its name, "
                "as in fastervlm:keep=0.5+vta:horizon=64"
            )
        parts = [parse_method(part) for part in specs]
        try:
            return compose(*parts)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
    name, _, parameters = spec.strip().partition(":")
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


def parse_methods(specs: Sequence[str], named: Mapping[str, Method | None]) -> dict[str, Method]:
    """Build several methods, by the label under which each was asked for.

    Parameters
    ----------
    specs : sequence of str
        As `parse_method` takes them, or a name in ``named``.
    named : Mapping
        What some labels stand for; those of None are left out.

    Raises
    ------
    WrongUsageError
        See `parse_method`; and if two are the same method.
    """
    labels = (" ".join(spec.split()) for spec in specs)
    found = {label: named[label] if label in named else parse_method(label) for label in labels}
    methods = {label: method for label, method in found.items() if method is not None}
    by_notation: dict[str, str] = {}
    for label, method in methods.items():
        other = by_notation.setdefault(str(method), label)
        if other != label:
            raise WrongUsageError(f"--method {label} and {other} are the same: leave one out")
    return methods


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise WrongUsageError(
                f"{setting!r} is no parameter: write name=value, for example ratio=0.5 (several values: layers=2/6/15)"
            )
        pairs[key.strip()] = value.strip()
    return pairs


def _typed(name: str, text: str, hint: Any) -> Any:
    """Read a value as the first fitting type: "64" as int, "0.5" as float, "2/6/15" as a tuple, "none" as None."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(None) in options and text.lower() == "none":
        return None
    for option in options:
        if get_origin(option) is tuple:
            element = get_args(option)[0]
            return tuple(_typed(name, part.strip(), element) for part in text.split("/"))
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
        if option is ModelLoader:
            return NamedModel(text)
        if option is str or get_origin(option) is Literal:
            return text
    described = {int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}
    raise WrongUsageError(f"{name}={text}: must be {' or '.join(described[option] for option in options)}")
