"""Methods by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from vistrim.errors import MethodError
from vistrim.methods.base.method import Method

_METHODS: dict[str, type[Method]] = {}

MethodT = TypeVar("MethodT", bound=type[Method])


@dataclass(frozen=True)
class MethodInfo:
    """A row of the capability table."""

    name: str
    summary: str
    stages: tuple[str, ...]
    needs: str
    kv_cache: str
    source: str
    parameters: dict[str, Any]
    """Parameter names with their defaults."""


def register(cls: MethodT) -> MethodT:
    """Class decorator that makes a method available by its name.

    Raises
    ------
    MethodError
        If the class does not say what is listed of every method.
    ValueError
        If another one has its name.
    """
    for described in ("name", "summary", "stages", "kv_cache", "source"):
        if not getattr(cls, described, None):
            raise MethodError(f"the method {cls.__name__} has no `{described}`: set this class variable")
    if cls.name in _METHODS:
        raise ValueError(f"two methods are called {cls.name!r}")
    _METHODS[cls.name] = cls
    return cls


def get_method(name: str, /, **parameters: Any) -> Method:
    """Build a method by name.

    Parameters
    ----------
    name : str
        One of the names of `list_methods`.
    **parameters
        The method's parameters.

    Raises
    ------
    ValueError
        If there is no such method or parameter (the nearest name is suggested), or a value is out of range.
    """
    cls = _find(name, _METHODS, "method", lambda names: f"the methods are {names}")
    known = {f.name for f in fields(cls)}
    for parameter in parameters:
        _find(
            parameter,
            dict.fromkeys(known),
            f"parameter of {name}",
            lambda names: f"it takes {names or 'none'}",
        )
    return cls(**parameters)


def list_methods() -> list[MethodInfo]:
    """All methods, in alphabetical order."""
    return [
        MethodInfo(
            name=cls.name,
            summary=cls.summary,
            stages=cls.stages,
            needs=cls.needs,
            kv_cache=cls.kv_cache,
            source=cls.source,
            parameters={f.name: f.default for f in fields(cls)},
        )
        for _, cls in sorted(_METHODS.items())
    ]


def _find(name: str, known: dict[str, Any], kind: str, choices: Callable[[str], str]) -> Any:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"no {kind} called {name!r}: {hint}{choices(', '.join(sorted(known)))}")
