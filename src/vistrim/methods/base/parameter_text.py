"""Parameters of methods as text, such as ``64``, ``2/6/15``, ``none`` or ``"a file, with a comma.json"``."""

import re
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from vistrim._utils.syntax import quote, split_outside, unquote
from vistrim.methods.base.named_model import ModelLoader, NamedModel

ANYTHING = int | float | bool | str | None
"""Type hint of a parameter whose own hint is missing or cannot be resolved."""
DESCRIBED = {int: "a whole number", float: "a number", bool: "true or false", type(None): "none", str: "text"}
"""Types as errors name them."""
EMPTY = "()"
"""Text of the empty tuple."""

BETWEEN_ELEMENTS = re.compile("/")
"""Separator of the elements of a tuple."""
_SPECIAL = re.compile(r'[,+\[\]"\r\n]')
_FLAGS = {"true": True, "false": False}


class HasNotation(ABC):
    """A parameter with a notation of its own, which is written in square brackets: a method."""

    @abstractmethod
    def to_dict(self) -> dict[str, str]:
        """Return the notation as a dictionary.

        Returns
        -------
        dict of str to str
            Notation that is read back as an equal object.

        Raises
        ------
        MethodError
            If a parameter cannot be written as text.
        """


@lru_cache(maxsize=256)
def parameter_hints(cls: type) -> dict[str, Any]:
    """Return the type hints of the parameters of a method's class.

    Parameters
    ----------
    cls : type
        Class of the method, a dataclass.

    Returns
    -------
    dict of str to type
        Hint of each parameter, `ANYTHING` where it is missing or cannot be resolved.
    """
    try:
        hints = get_type_hints(cls)
    # Hints of a class that is defined in a function or notebook may refer to names that exist only there.
    except (NameError, TypeError, AttributeError):
        hints = {}
    return {field.name: hints.get(field.name, ANYTHING) for field in fields(cls) if field.init}


def options(hint: Any) -> tuple[Any, ...]:
    """List the types that a hint allows.

    Parameters
    ----------
    hint : type
        Type hint of a parameter.

    Returns
    -------
    tuple of type
        The types in the order in which they are tried. Numbers come first, so that "64" is a number wherever one is
        allowed.
    """
    hint = ANYTHING if hint in (Any, object) else hint
    found = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    numbers = [kind for kind in (int, float, bool) if kind in found]
    return (*numbers, *(option for option in found if option not in numbers))


def write_value(value: Any, hint: Any = ANYTHING) -> str:
    """Write the value of a parameter as text.

    `read_value` restores the value from the text if `is_written` is true for it. The text of any other value, such as
    a loaded model, only describes it.

    Parameters
    ----------
    value : object
        Value of the parameter.
    hint : type
        Type hint of the parameter.

    Returns
    -------
    str
        The text, in double quotes where it would otherwise be read as something else.
    """
    if isinstance(value, tuple):
        return "/".join(_write_element(element, hint) for element in value) or EMPTY
    if isinstance(value, HasNotation):
        return f"[{value}]"
    if isinstance(value, nn.Module):
        return Path(getattr(value, "name_or_path", "")).name or type(value).__name__
    text = str(value)
    if isinstance(value, (str, Path, NamedModel)) and not _reads_as(text, value, hint):
        return quote(text)
    return text


def _write_element(element: Any, hint: Any) -> str:
    kinds = [get_args(option)[0] for option in options(hint) if get_origin(option) is tuple]
    text = write_value(element, kinds[0] if kinds else ANYTHING)
    is_text = isinstance(element, (str, Path, NamedModel)) and unquote(text) is None
    return quote(text) if is_text and "/" in text else text


def is_written(value: Any, hint: Any) -> bool:
    """Check that `read_value` restores a value from the text of `write_value`.

    Parameters
    ----------
    value : object
        Value of the parameter.
    hint : type
        Type hint of the parameter.

    Returns
    -------
    bool
        Whether value and type are the same after a round trip.

    Raises
    ------
    MethodError
        If the value is a method that cannot be written.
    """
    if isinstance(value, HasNotation):
        value.to_dict()
        return True
    if isinstance(value, tuple) and any(isinstance(element, HasNotation) for element in value):
        return all(is_written(element, hint) for element in value)
    plain = value is None or isinstance(value, (bool, int, float, str, tuple, Path, NamedModel))
    return plain and _reads_as(write_value(value, hint), value, hint)


def _reads_as(text: str, value: Any, hint: Any) -> bool:
    plain = unquote(text) is None and not isinstance(value, tuple)
    if plain and (_SPECIAL.search(text) or text != text.strip() or not text) and not isinstance(value, float):
        return False
    try:
        read = read_value("", text, hint, lambda _: None)
    except ValueError:
        return False
    # 1 and 1.0 are different budgets: one token and all tokens.
    same_kind = type(read) is type(value) or (type(value) in (int, float, bool) and type(value) not in options(hint))
    return same_kind and bool(read == value)


def read_value(name: str, text: str, hint: Any, read_method: Callable[[str], Any]) -> Any:
    """Read the value of a parameter as the first type that fits.

    "64" is read as an int, "0.5" as a float, "2/6/15" as a tuple and "none" as None.

    Parameters
    ----------
    name : str
        Name of the parameter, for errors.
    text : str
        Text of the value. Double quotes mark a string and square brackets a method.
    hint : type
        Type hint of the parameter.
    read_method : callable
        Function that reads the notation of a method.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueError
        If the text fits no type that the hint allows. The error lists these types.
    """
    choices = options(hint)
    if type(None) in choices and text.lower() == "none":
        return None
    reasons: list[ValueError] = []
    for option in choices:
        try:
            return _read_option(name, text, option, read_method)
        except ValueError as error:
            reasons.append(error)
    if all(option in DESCRIBED for option in choices) or not reasons:
        # A number may be whole, too.
        described = [DESCRIBED[option] for option in choices if not (option is int and float in choices)]
        raise ValueError(f"{name}={text}: must be {' or '.join(described)}")
    raise reasons[[option in DESCRIBED for option in choices].index(False)]


def _read_option(name: str, text: str, option: Any, read_method: Callable[[str], Any]) -> Any:
    """Read text as one type.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueError
        If the text does not fit the type.
    """
    if get_origin(option) is tuple:
        return _read_tuple(name, text, get_args(option), read_method)
    bare = unquote(text)
    if option is str:
        return text if bare is None else bare
    if get_origin(option) is Literal:
        # The method itself refuses other values, with an error that names the allowed ones.
        word = text if bare is None else bare
        return next((value for value in get_args(option) if str(value) == word), word)
    if option is Path:
        return Path(text if bare is None else bare)
    if option is ModelLoader:
        return NamedModel(text if bare is None else bare)
    if option in (int, float) and bare is None:
        return option(text)
    if option is bool and text.lower() in _FLAGS:
        return _FLAGS[text.lower()]
    if isinstance(option, type) and issubclass(option, HasNotation):
        return _read_method(name, text, option, read_method)
    raise ValueError(f"{name}={text}: {getattr(option, '__name__', option)} has no notation: give the object in Python")


def _read_tuple(name: str, text: str, kinds: tuple[Any, ...], read_method: Callable[[str], Any]) -> tuple[Any, ...]:
    if text == EMPTY:
        return ()
    parts = [part.strip() for part in split_outside(text, BETWEEN_ELEMENTS)]
    if kinds[1:] and kinds[1] is not Ellipsis:
        if len(parts) != len(kinds):
            raise ValueError(f"{name}={text}: must be {len(kinds)} values with slashes between them")
    else:
        kinds = kinds[:1] * len(parts)
    return tuple(read_value(name, part, kind, read_method) for part, kind in zip(parts, kinds, strict=True))


def _read_method(name: str, text: str, wanted: type, read_method: Callable[[str], Any]) -> Any:
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"{name}={text}: must be a method in square brackets, as in {name}=[vispruner:keep=64]")
    found = read_method(text[1:-1])
    if found is not None and not isinstance(found, wanted):
        raise ValueError(f"{name}={text}: {found.name} is no {wanted.__name__}")
    return found
