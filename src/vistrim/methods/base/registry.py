"""Registry of methods by name."""

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
    """A row of the table of methods.

    Attributes
    ----------
    name : str
        Name in the notation.
    summary : str
        One line that describes the method.
    stages : tuple of str
        Stages at which it acts.
    needs : str
        Requirements on the model.
    kv_cache : str
        Effect on the KV cache of visual tokens.
    source : str
        Paper or other origin.
    parameters : dict of str to object
        Default value of each parameter.
    """

    name: str
    summary: str
    stages: tuple[str, ...]
    needs: str
    kv_cache: str
    source: str
    parameters: dict[str, Any]


def register(cls: MethodT) -> MethodT:
    """Register a method class under its name, as a class decorator.

    The method is then available in the notation, in lists and in every command. The class must be a frozen dataclass
    whose parameters all have defaults. If the same class is defined again, as when a notebook cell runs twice, the new
    definition replaces the old one.

    Parameters
    ----------
    cls : type
        The class.

    Returns
    -------
    type
        The same class.

    Raises
    ------
    MethodError
        If the class is not a dataclass, its name cannot stand in the notation, a parameter has no default, or it acts
        at no stage.
    NameTakenError
        If another method has the same name. It is a `ValueError`.
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
    """Build a method from its name and parameters.

    Parameters
    ----------
    name : str
        A name from `list_methods`.
    **parameters : object
        Parameters of the method.

    Returns
    -------
    Method
        The method.

    Raises
    ------
    ValueError
        If there is no such method or parameter (the message suggests the closest name), or a value is out of range.
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
    """Find the class of a method by its name.

    If the name is unknown, the modules of other distributions are imported first.

    Parameters
    ----------
    name : str
        Name in the notation.

    Returns
    -------
    type
        The class of the method.

    Raises
    ------
    ValueError
        If there is no such method (the message suggests the closest name), or two methods share a name.
    """
    if name not in _METHODS:
        load_plugins()
    if name not in _METHODS:
        raise ValueError(
            f"no method called {name!r}: {_unregistered(name) or _nearest(name, _METHODS)}the methods are "
            f"{', '.join(sorted(_METHODS))}"
        )
    return _METHODS[name]


def list_methods() -> list[MethodInfo]:
    """List all methods in alphabetical order, including those of other distributions.

    Returns
    -------
    list of MethodInfo
        One entry per method.

    Raises
    ------
    ValueError
        If two methods share a name. The message names their distributions.
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


def _unregistered(name: str) -> str:
    # Advice for the name of a user's own class.
    classes: list[type[Method]] = [Method]
    for cls in classes:
        classes += cls.__subclasses__()
    for cls in classes:
        if name in (cls.name, cls.__name__) and not cls.__module__.startswith("vistrim."):
            return f"{cls.__name__} is not registered: pass an instance of it, or put @register above the class; "
    return ""


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""
