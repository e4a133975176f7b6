"""Former names of parameters, so that errors can name the current ones."""

from collections.abc import Iterable
from functools import wraps
from typing import Any

RENAMED = {
    "fastv": {"ratio": "keep, the share that stays (1 - ratio)"},
    "hybrid": {"ratio": "drop_per_cut"},
    "psigmoid": {"budget": "mean_keep"},
    "pvtp": {"ratio": "drop_per_cut"},
    "sgl": {"keep_ratio": "keep"},
    "sparsevlm": {"budget": "mean_keep"},
    "st3": {"ratio": "drop_per_cut"},
    "vispruner": {"important_ratio": "important"},
    "yopo": {"normalise": "normalize"},
}
"""For each method, its former parameter names and the current name of each."""


def renamed(method: str, given: Iterable[str]) -> str | None:
    """Describe the first of the given parameters that has a new name.

    Parameters
    ----------
    method : str
        Name of the method.
    given : iterable of str
        Names of the parameters that a caller passed.

    Returns
    -------
    str or None
        Text for an error. None if no parameter has a new name.
    """
    names = RENAMED.get(method, {})
    return next((f"{method}: the parameter {old} is now {names[old]}" for old in given if old in names), None)


def refuse_former_names(cls: type) -> None:
    """Make the constructor of a class raise a `TypeError` that names the current parameter.

    Classes without renamed parameters stay unchanged.

    Parameters
    ----------
    cls : type
        Class of a method. Its ``__init__`` is replaced.
    """
    name, made = cls.name, cls.__init__  # type: ignore[attr-defined,misc]
    if name not in RENAMED or hasattr(made, "__wrapped__"):
        return

    @wraps(made)
    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        if message := renamed(name, kwargs):
            raise TypeError(message)
        made(self, *args, **kwargs)

    cls.__init__ = construct  # type: ignore[misc]
