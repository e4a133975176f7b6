"""Several methods, each with a label."""

from collections.abc import Mapping, Sequence

from vistrim.methods.base.method import Method
from vistrim.methods.base.notation import as_method


def by_label(methods: Mapping[str, Method | str] | Sequence[Method | str], reserved: str) -> dict[str, Method]:
    """Assign a label to each of several methods.

    Parameters
    ----------
    methods : mapping of str to (Method or str), or sequence of (Method or str)
        Methods or notations. The keys of a mapping are the labels; in a sequence, the notation of each method is its
        label.
    reserved : str
        Label of the untouched model, which no method may have.

    Returns
    -------
    dict of str to Method
        Methods by label.

    Raises
    ------
    TypeError
        If ``methods`` is a single method, or contains something that is neither a method nor a string.
    ValueError
        If a notation is wrong, two methods have the same notation, or a method has the label ``reserved``.
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
