"""Names of a package that are imported from its modules when they are first asked for."""

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
        The package that is asked.
    name : str
        What it is asked for.
    public : collection of str
        The names that it has.
    homes : mapping of str to collection of str
        Modules, and the names that come from each.
    default : str
        The module that all other names come from.

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
