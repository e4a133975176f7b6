"""Methods as text: ``st3``, ``st3:stride=2``, ``fastervlm:keep=0.5+vta``, ``restore:selector=[vispruner:keep=64]``.

A method is its name and, behind a colon, parameters with commas between them. Several with a plus between them are
composed. Elements of a tuple have slashes between them, a method as a parameter stands in square brackets, and text
with commas, plus signs, brackets or quotes stands in double quotes. Methods print like this.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vistrim._utils.syntax import split_outside
from vistrim.methods.base.budgeted import Budgeted
from vistrim.methods.base.composition import Composed
from vistrim.methods.base.method import Method
from vistrim.methods.base.method_file import read_method_file
from vistrim.methods.base.parameter_text import parameter_hints, read_value
from vistrim.methods.base.registry import find_method, get_method

BETWEEN_METHODS = re.compile(r"\+(?=\s*[A-Za-z])")
"""A plus that is no part of a number such as 1e+3."""
BETWEEN_PARAMETERS = re.compile(",")

KEYS = ("method",)
"""Keys that `from_plain_data` reads; a budget needs a model and is read by `vistrim.method_from_dict`."""


def parse_method(notation: str, settings: Mapping[str, str] | None = None, preset: str | None = None) -> Method:
    """Build a method from its notation.

    Parameters
    ----------
    notation : str
        For example ``"st3:drop_per_cut=0.5,stride=2"`` or ``"fastervlm:keep=0.5+st3"``. One of the parameters may be
        ``preset``, of a method that has presets.
    settings : mapping of str to str
        Further parameters as they stand in the notation; they win over those in ``notation``.
    preset : str, optional
        Start from this preset of the method instead of its default values; wins as well.

    Returns
    -------
    Method
        The method; several with a plus between them are a composition.

    Raises
    ------
    ValueError
        If there is no such method, preset or parameter (the nearest name is suggested), a value is of the wrong type or
        out of range, or the text is no notation.
    """
    parts = split_outside(notation, BETWEEN_METHODS)
    if len(parts) > 1:
        if settings or preset is not None:
            raise ValueError(
                f"parameters beside the composition {notation} could belong to any part: write them behind its name, "
                "as in fastervlm:keep=0.5+vta:horizon=64"
            )
        return Composed.of([parse_method(part) for part in parts])
    name, _, written = notation.strip().partition(":")
    given = _pairs(written) | dict(settings or {})
    in_notation = given.pop("preset", None)
    preset = in_notation if preset is None else preset
    hints = parameter_hints(find_method(name))
    values = {
        # An unknown one is refused below, by the nearest name.
        key: read_value(key, text, hints[key], parse_method) if key in hints else text
        for key, text in given.items()
    }
    method = get_method(name, **values)
    if preset is None:
        return method
    if not hasattr(method, "preset"):
        raise ValueError(f"{name} has no presets: leave preset {preset} away, or use st3")
    return replace(method.preset(preset), **values)


def as_method(method: "Method | Budgeted | str") -> Method:
    """Return a method as it is, or take it from a `Budgeted`, or build it from its notation.

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        See `parse_method`.
    TypeError
        If it is none of these.
    """
    if isinstance(method, str):
        return parse_method(method)
    if isinstance(method, Budgeted):
        return method.method
    if isinstance(method, Method):
        return method
    raise TypeError(
        f"{method!r} is no method: give one such as vistrim.ST3(), or its notation, as in 'fastervlm:keep=0.5+st3'"
    )


def compose(*methods: Method | str) -> Composed:
    """Run methods that act in different stages together.

    Parameters
    ----------
    *methods : Method or str
        At least two, each as an object or in its notation; no two may act in the same stage (before the decoder, inside
        its layers, in prefill, while decoding).

    Returns
    -------
    Composed
        A method like any other. Shares count the tokens that the stage before has left.

    Raises
    ------
    ValueError
        If two of them act in the same stage, there are fewer than two, or a notation is wrong.
    TypeError
        If one of them is no method.

    Examples
    --------
    >>> vistrim.compose(vistrim.FasterVLM(0.5), vistrim.PVTP(), "vta:horizon=64")
    """
    return Composed.of([as_method(method) for method in methods])


def from_plain_data(values: Mapping[str, Any]) -> Method:
    """Build a method from plain data as `Method.to_dict` returns it.

    Parameters
    ----------
    values : mapping
        ``{"method": notation}``, and nothing else.

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        If a key is missing or unknown, or the notation is wrong.

    See Also
    --------
    vistrim.method_from_dict : Also reads a budget.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f'{values!r} is no method: give {{"method": "fastervlm:keep=0.5+st3"}}')
    if unknown := [key for key in values if key not in KEYS]:
        raise ValueError(f"a method has no {', '.join(map(repr, unknown))}: the keys are {', '.join(KEYS)} and budget")
    if not isinstance(values.get("method"), str):
        raise ValueError('the key "method" must be a notation, as in {"method": "fastervlm:keep=0.5+st3"}')
    return parse_method(values["method"])


def load_method(folder: str | Path) -> Method:
    """Read the method that `Method.save` wrote beside a checkpoint.

    Parameters
    ----------
    folder : str or Path
        With ``vistrim.json`` in it. Files that a parameter names are looked for as it is written there.

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        If there is no such file, or it is not one of this version; with the fix.

    Examples
    --------
    >>> vistrim.ST3(stride=2).save("my-checkpoint")
    >>> with vistrim.trim(model, vistrim.load_method("my-checkpoint")) as run:
    ...     output = model.generate(**inputs, max_new_tokens=64)
    """
    content = read_method_file(folder)
    try:
        return from_plain_data(content)
    except ValueError as error:
        raise ValueError(f"the method of {folder}: {error}") from error


def read_setting(text: str) -> tuple[str, str]:
    """Split a parameter written as ``name=value`` into its name and value.

    Parameters
    ----------
    text : str
        For example ``"keep=0.5"``.

    Returns
    -------
    tuple of str
        Name and value, without spaces around them.

    Raises
    ------
    ValueError
        If the text has no name, equals sign or value.
    """
    name, equals, value = (piece.strip() for piece in text.partition("="))
    if not (name and equals and value):
        raise ValueError(
            f"{text!r} is no parameter: write name=value, for example keep=0.5 (several values: layers=2/6/15)"
        )
    return name, value


def _pairs(written: str) -> dict[str, str]:
    return dict(map(read_setting, split_outside(written, BETWEEN_PARAMETERS))) if written else {}
