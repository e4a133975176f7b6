"""Evenly spaced tokens, in subsets that stay evenly spaced as they shrink."""

from collections.abc import Sequence

from torch import Tensor

from vistrim.core.schedules import share_of
from vistrim.core.selection import Selection, keep_top

MODULUS = 1 << 24
"""Numbers below it are exact in float32."""
MULTIPLIER = 10368889
"""``MODULUS`` divided by the golden ratio, rounded to an odd number, so that no two tokens get the same value."""


def spacing(numbers: Tensor) -> Tensor:
    r"""Compute an order of tokens whose first ``k`` are evenly spaced for every ``k``.

    The order is that of the fractional part of :math:`i / \varphi` (golden ratio), which has at most three different
    gaps at a time. Taking every second token again and again would keep the same columns of every row of an image.

    Parameters
    ----------
    numbers : Tensor
        ``[...]`` long: number of each token, below 2**24.

    Returns
    -------
    Tensor
        ``[...]`` long: the smaller, the earlier in this order. All different.
    """
    return numbers * MULTIPLIER % MODULUS


def keep_top_and_spaced(
    scores: Tensor, candidates: Tensor, counts: Sequence[int], numbers: Tensor, spread: float
) -> Selection:
    """Keep evenly spaced candidates, and of the others those with the highest score.

    A selection from an earlier one, with smaller counts, keeps some of its evenly spaced tokens.

    Parameters
    ----------
    scores, candidates, counts
        As in `vistrim.core.selection.keep_top`.
    numbers : Tensor
        ``[batch, tokens]`` long: numbers of the candidates, by which they are spaced.
    spread : float
        Share of ``counts`` that is evenly spaced, in [0, 1], rounded down.

    Returns
    -------
    Selection
        The kept tokens, ``counts[b]`` in sample ``b``.
    """
    shares = [share_of(spread, count) for count in counts]
    spaced = keep_top(-spacing(numbers), candidates, shares).keep
    others = [count - share for count, share in zip(counts, shares, strict=True)]
    return Selection(spaced | keep_top(scores, candidates & ~spaced, others).keep, tuple(counts))
