"""Number of visual tokens kept at each layer and decoding step."""

import math
from typing import Literal, get_args

Decay = Literal["constant", "linear", "cosine", "exponential"]
DECAYS: tuple[str, ...] = get_args(Decay)

EXPONENTIAL_RATE = 3.0
"""Rate of the exponential decay: 5 % of the visual tokens remain after one horizon."""

SMALLEST_SHARE = 1e-6
"""Smallest mean share above that of layers that cannot be cut, so that each of the others keeps a token."""


def scaled_to_depth(value_at_32_layers: int, depth: int) -> int:
    """Scale a layer number from a 32-layer decoder to another depth.

    Parameters
    ----------
    value_at_32_layers : int
        Layer number or number of layers in a decoder of 32 layers.
    depth : int
        Number of decoder layers.

    Returns
    -------
    int
        The scaled number, at least 1.
    """
    return max(1, math.floor(value_at_32_layers * depth / 32 + 0.5))


def cuts_before(layer: int, start_layer: int, stride: int) -> int:
    """Count the cuts ``K(l)`` made before layer ``l`` runs.

    The first cut is before ``start_layer``. The others follow every ``stride`` layers.

    Parameters
    ----------
    layer : int
        Layer ``l``, 0-based.
    start_layer : int
        Layer before which the first cut is made.
    stride : int
        Layers from one cut to the next.

    Returns
    -------
    int
        Number of cuts.
    """
    return 0 if layer < start_layer else (layer - start_layer) // stride + 1


def decay_factor(decay: Decay, step: int, horizon: int) -> float:
    """Compute the fraction ``f(t)`` of visual tokens left by annealing at decoding step ``t``.

    Parameters
    ----------
    decay : {"constant", "linear", "cosine", "exponential"}
        Shape of the decay. All start at 1 and never rise. Linear and cosine reach 0 at the horizon. Exponential is
        ``exp(-3 t / horizon)``.
    step : int
        Generated tokens in the sequence, including the one being processed. 0 in prefill.
    horizon : int
        Steps over which the tokens are annealed.

    Returns
    -------
    float
        A factor in [0, 1].

    Raises
    ------
    ValueError
        If there is no such decay.
    """
    if decay == "constant":
        return 1.0
    if decay == "linear":
        return max(0.0, 1.0 - step / horizon)
    if decay == "cosine":
        return (1.0 + math.cos(math.pi * min(step, horizon) / horizon)) / 2.0
    if decay == "exponential":
        return math.exp(-EXPONENTIAL_RATE * step / horizon)
    raise ValueError(f"unknown decay {decay!r}; choose one of {', '.join(DECAYS)}")


def tokens_kept(n: int, retention: float, factor: float = 1.0, floor: float = 0.0) -> int:
    """Compute the number ``G(l, t)`` of visual tokens to keep.

    Parameters
    ----------
    n : int
        Visual tokens of the sample before any trimming.
    retention : float
        Fraction left by the cuts across layers, ``(1 - R) ** K(l)``.
    factor : float
        Fraction left by annealing, ``f(t)``.
    floor : float
        Fraction of ``n * retention`` that annealing always keeps.

    Returns
    -------
    int
        ``floor(n * retention * factor + 1/2)``, at least ``ceil(floor * n * retention)``.
    """
    kept = math.floor(n * retention * factor + 0.5)
    # Rounded first: 7 % of 100 is 7.000000000000001 in floating point, but means 7 tokens.
    least = math.ceil(floor * n * retention - 1e-9)
    return min(n, max(kept, least))


def budget(keep: int | float, n: int) -> int:
    """Resolve ``keep`` for an image of ``n`` visual tokens.

    Parameters
    ----------
    keep : int or float
        An int is a number of tokens, a float a fraction in (0, 1].
    n : int
        Visual tokens of the image.

    Returns
    -------
    int
        Number of tokens to keep, at most ``n``.
    """
    return min(n, max(1, math.floor(n * keep + 0.5)) if isinstance(keep, float) else keep)


def check_keep(name: str, keep: int | float, least: int = 2) -> None:
    """Refuse what is neither a share in (0, 1] nor a whole number of tokens from ``least`` on.

    The number 1 could be meant as everything or as one token.

    Raises
    ------
    ValueError
        With the fix; ``name`` is the parameter's.
    """
    fits = 0 < keep <= 1 if isinstance(keep, float) else type(keep) is int and keep >= least
    if fits:
        return
    if keep == 1 and not isinstance(keep, bool):
        raise ValueError(f"{name}=1 could mean all or one: write 1.0 for all, or a number of tokens from {least} on")
    raise ValueError(
        f"{name}={keep}: give a share of the image's tokens, above 0 and up to 1.0, or a whole number of tokens per "
        f"image, from {least} on"
    )


def share_kept(rate: float, n: int) -> int:
    """Compute the number of visual tokens to keep at a keep rate, rounded up.

    Parameters
    ----------
    rate : float
        Keep rate in [0, 1].
    n : int
        Visual tokens.

    Returns
    -------
    int
        ``ceil(rate * n)``: at least one unless ``rate`` is exactly 0.
    """
    if rate <= 0:
        return 0
    # Rounded first: 7 % of 100 is 7.000000000000001 in floating point, but means 7 tokens.
    return min(n, max(1, math.ceil(rate * n - 1e-9)))


def share_of(share: float, n: int) -> int:
    """Compute the number of tokens in a fraction of ``n``, rounded down.

    Parameters
    ----------
    share : float
        Fraction in [0, 1].
    n : int
        Tokens.

    Returns
    -------
    int
        ``floor(share * n)``.
    """
    # Rounded first: 29 % of 100 is 28.999999999999996 in floating point, but means 29 tokens.
    return math.floor(share * n + 1e-9)
