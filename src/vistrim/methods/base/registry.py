"""Methods by name."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from vistrim.errors import MethodError
from vistrim.methods.base.method import Method
from vistrim.methods.base.plugins import NameTakenError, distribution_of, load_plugins
from vistrim.methods.base.renamed import refuse_former_names, renamed

_METHODS: dict[str, type[Method]] = {}
_NAME = re.compile(r"[A-Za-z][\w.-]*")

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
    """Class decorator that makes a method available by its name: in the notation, in lists and in every command.

    The class is a frozen dataclass whose parameters all have defaults. Defined again, as when a notebook's cell runs
    twice, it replaces its former self.

    Raises
    ------
    MethodError
        If the class is not such a dataclass, its name cannot stand in the notation, or it acts in no stage.
    ValueError
        If another method has its name.
    """
    if not is_dataclass(cls) or "__dataclass_fields__" not in vars(cls):
        raise MethodError(f"the method {cls.__name__} is no dataclass: put @dataclass(frozen=True) below @register")
    if not (isinstance(cls.name, str) and _NAME.fullmatch(cls.name)):
        raise MethodError(f"the method {cls.__name__} has name={cls.name!r}: use letters, digits and hyphens")
    if not cls.stages:
        raise MethodError(
            f"the method {cls.__name__} has no `stages`: override a hook, such as select_input, or set them"
        )
    if required := [name for name, default in _defaults(cls).items() if default is MISSING]:
        raise MethodError(f"the method {cls.__name__} has no default for {', '.join(required)}: give it one")
    there = _METHODS.get(cls.name)
    if there is not None and (there.__module__, there.__qualname__) != (cls.__module__, cls.__qualname__):
        raise NameTakenError(
            f"two methods are called {cls.name!r}: {_origin(there)} and {_origin(cls)}; rename one, or uninstall its "
            "distribution"
        )
    refuse_former_names(cls)
    _METHODS[cls.name] = cls
    cls._registered = cls
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
    cls = find_method(name)
    known = [field.name for field in fields(cls) if field.init]
    if message := renamed(name, (parameter for parameter in parameters if parameter not in known)):
        raise ValueError(message)
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(
                f"no parameter of {name} called {parameter!r}: {_nearest(parameter, known)}"
                f"it takes {', '.join(sorted(known)) or 'none'}"
            )
    return cls(**parameters)


def find_method(name: str) -> type[Method]:
    """The class of a method by its name; modules of other distributions are imported for names not known yet.

    Raises
    ------
    ValueError
        If there is none (the nearest name is suggested), or two methods share a name.
    """
    if name not in _METHODS:
        load_plugins()
    if name not in _METHODS:
        raise ValueError(
            f"no method called {name!r}: {_nearest(name, _METHODS)}the methods are {', '.join(sorted(_METHODS))}"
        )
    return _METHODS[name]


def list_methods() -> list[MethodInfo]:
    """All methods, those of other distributions too, in alphabetical order.

    Raises
    ------
    ValueError
        If two methods share a name; says whose they are.
    """
    load_plugins()
    return [
        MethodInfo(
            name=cls.name,
            summary=cls.summary,
            stages=cls.stages,
            needs=cls.needs,
            kv_cache=cls.kv_cache,
            source=cls.source,
            parameters=_defaults(cls),
        )
        for _, cls in sorted(_METHODS.items())
    ]


def _defaults(cls: type[Method]) -> dict[str, Any]:
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(cls)
        if field.init
    }


def _origin(cls: type[Method]) -> str:
    return f"{cls.__name__} of {distribution_of(cls.__module__)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""
