"""Several methods, each under its label."""

from collections.abc import Mapping, Sequence

from vistrim.methods.base.method import Method
from vistrim.methods.base.notation import as_method


def by_label(methods: Mapping[str, Method | str] | Sequence[Method | str], reserved: str) -> dict[str, Method]:
    """Methods by label: a mapping's own, or else the notation of each. Strings are read as notation.

    Raises
    ------
    TypeError
        If there is a single method, or something that is neither a method nor text.
    ValueError
        If a notation is wrong, two methods have the same notation, or one has the label ``reserved``.
    """
    if isinstance(methods, (Method, str)):
        raise TypeError("methods must be several: write [method] for a single one")
    if isinstance(methods, Mapping):
        named = {label: as_method(method) for label, method in methods.items()}
    else:
        named = {str(method): method for method in map(as_method, methods)}
    if len(named) < len(methods):
        raise ValueError("two methods are the same: leave one out, or pass a mapping with a label for each")
    if reserved in named:
        raise ValueError(f"{reserved!r} is the label of the untouched model: give the method another")
    return named
