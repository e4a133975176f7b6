"""Several methods, each under its label."""

from collections.abc import Mapping, Sequence

from vistrim.methods.base.method import Method


def by_label(methods: Mapping[str, Method] | Sequence[Method], reserved: str) -> dict[str, Method]:
    """Methods by label: a mapping's own, or else the notation of each.

    Raises
    ------
    TypeError
        If there is a single method, or something that is none.
    ValueError
        If two methods have the same notation, or one has the label ``reserved``.
    """
    if isinstance(methods, Method):
        raise TypeError("methods must be several: write [method] for a single one")
    named = dict(methods) if isinstance(methods, Mapping) else {str(method): method for method in methods}
    if len(named) < len(methods):
        raise ValueError("two methods are the same: leave one out, or pass a mapping with a label for each")
    if other := next((method for method in named.values() if not isinstance(method, Method)), None):
        raise TypeError(f"{other!r} is no method: pass instances such as vistrim.ST3()")
    if reserved in named:
        raise ValueError(f"{reserved!r} is the label of the untouched model: give the method another")
    return named
