"""Checks of parameters that several methods have."""

from itertools import pairwise


def check_positions(positions: str) -> None:
    """Check that a parameter names a way to assign positions.

    Parameters
    ----------
    positions : str
        Value of the parameter ``positions``.

    Raises
    ------
    ValueError
        If it is neither "original" nor "renumber".
    """
    if positions not in ("original", "renumber"):
        raise ValueError(f"positions={positions!r}: must be original or renumber")


def check_layers(name: str, layers: tuple[int, ...], first: int) -> None:
    """Check that a parameter is a tuple of increasing layer numbers.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    layers : tuple of int
        Value of the parameter: decoder layers, 0-based.
    first : int
        Smallest layer allowed.

    Raises
    ------
    ValueError
        If it is not such a tuple, is empty, or begins before ``first``.
    """
    fits = isinstance(layers, tuple) and layers and all(type(layer) is int for layer in layers)
    if not fits or layers[0] < first or any(a >= b for a, b in pairwise(layers)):
        raise ValueError(f"{name}={layers!r}: must be a tuple of whole numbers that rise, from {first} on")


def check_layer(name: str, layer: int, depth: int) -> None:
    """Check that the first cut is not after the last layer.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    layer : int
        Layer of the first cut, 0-based.
    depth : int
        Number of decoder layers.

    Raises
    ------
    ValueError
        If the model has no such layer.
    """
    if layer >= depth:
        raise ValueError(
            f"{name}={layer}, but the model has {depth} decoder layers (0 to {depth - 1}): "
            f"nothing would be trimmed; choose a smaller {name}"
        )
