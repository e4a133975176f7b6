"""Lazy imports of the public names of a package."""

from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def find_lazily(
    package: str, name: str, public: Collection[str], homes: Mapping[str, Collection[str]], default: str = ""
) -> Any:
    """Import a name, or a module of the package.

    Parameters
    ----------
    package : str
        The package.
    name : str
        The requested name.
    public : collection of str
        Public names of the package.
    homes : mapping of str to collection of str
        Names by the module that defines them.
    default : str
        The module that defines all other names.

    Raises
    ------
    AttributeError
        If there is no such name.
    """
    if name in public:
        home = next((module for module, names in homes.items() if name in names), default)
        return getattr(import_module(home), name)
    if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
        return import_module(f"{package}.{name}")
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
