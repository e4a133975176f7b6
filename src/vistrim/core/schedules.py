"""How many visual tokens stay at a layer and decoding step: plain arithmetic."""

import math
from typing import Literal, get_args

Decay = Literal["constant", "linear", "cosine", "exponential"]
DECAYS: tuple[str, ...] = get_args(Decay)

EXPONENTIAL_RATE = 3.0
"""Rate of the exponential decay: 5 % of the visual tokens are left after one horizon."""


def scaled_to_depth(value_at_32_layers: int, depth: int) -> int:
    """Scale a layer number that was chosen for a 32-layer decoder to another depth (at least 1)."""
    return max(1, math.floor(value_at_32_layers * depth / 32 + 0.5))


def cuts_before(layer: int, start_layer: int, stride: int) -> int:
    """Count the cuts ``K(l)`` that were made before layer ``layer`` runs.

    The first cut is made before ``start_layer``, the next ones every ``stride`` layers.
    """
    return 0 if layer < start_layer else (layer - start_layer) // stride + 1


def decay_factor(decay: Decay, step: int, horizon: int) -> float:
    """Share ``f(t)`` of the visual tokens that annealing leaves at decoding step ``step``.

    Parameters
    ----------
    decay : {"constant", "linear", "cosine", "exponential"}
        Shape of the decay. All start at 1 for step 0 and never rise; linear and cosine reach 0 at the
        horizon, exponential is ``exp(-3 t / horizon)``.
    step : int
        Generated tokens in the sequence, counting the one being processed; 0 in prefill.
    horizon : int
        Steps over which the tokens are annealed.

    Returns
    -------
    float
        A factor in [0, 1].
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
    """Visual tokens ``G(l, t)`` to keep out of ``n``.

    Parameters
    ----------
    n : int
        Visual tokens of the sample before any trimming.
    retention : float
        Share left by the cuts across layers, ``(1 - ratio) ** K(l)``.
    factor : float
        Share left by annealing, ``f(t)``.
    floor : float
        Share of ``n * retention`` below which annealing never goes.

    Returns
    -------
    int
        ``floor(n * retention * factor + 1/2)``, at least ``ceil(floor * n * retention)``.
    """
    kept = math.floor(n * retention * factor + 0.5)
    # 7 % of 100 is 7.000000000000001 in floating point, but 7 tokens.
    least = math.ceil(floor * n * retention - 1e-9)
    return min(n, max(kept, least))


def budget(keep: int | float, n: int) -> int:
    """Resolve a budget for an image of ``n`` tokens: an int is a number of tokens, a float a share in (0, 1]."""
    return min(n, max(1, math.floor(n * keep + 0.5)) if isinstance(keep, float) else keep)


def check_budget(keep: int | float) -> None:
    """Refuse a budget that is neither a positive number of tokens nor a share in (0, 1]."""
    fits = 0 < keep <= 1 if isinstance(keep, float) else keep >= 1
    if not fits:
        raise ValueError(
            f"keep={keep}: give a whole number of tokens (at least 1) or a share of the image's tokens, "
            "above 0 and up to 1.0"
        )


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
    """Visual tokens ``ceil(rate * n)`` of ``n``: at least one, unless the rate is exactly 0."""
    if rate <= 0:
        return 0
    # 7 % of 100 is 7.000000000000001 in floating point, but 7 tokens.
    return min(n, max(1, math.ceil(rate * n - 1e-9)))


def share_of(share: float, n: int) -> int:
    """Whole tokens in a share of ``n``, rounded down."""
    # 29 % of 100 is 28.999999999999996 in floating point, but 29 tokens.
    return math.floor(share * n + 1e-9)
