"""Work on a batch in which a bad item affects no other."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from vistrim._utils.memory import is_out_of_memory
from vistrim.errors import VistrimError

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")


def each(
    items: Sequence[ItemT],
    attempt: Callable[[Sequence[ItemT]], Sequence[FoundT]],
    tolerated: tuple[type[VistrimError], ...] = (),
) -> list[FoundT | str]:
    """Work on items in one batch. If it fails, its halves are tried, down to single items.

    Parameters
    ----------
    items : sequence
        The items.
    attempt : callable
        Returns one result per item, or raises.
    tolerated : tuple of types
        Errors of vistrim that are about a single item. All others are raised.

    Returns
    -------
    list
        The result of each item, or the reason why it has none.
    """
    try:
        return list(attempt(items))
    except Exception as error:
        if isinstance(error, VistrimError) and not isinstance(error, tolerated):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if is_out_of_memory(error):
            reason += " (use a smaller model, --dtype bfloat16 or less --max-new-tokens)"
    # Outside of the handler, because the error keeps the failed batch in memory.
    if len(items) == 1:
        return [reason]
    torch.cuda.empty_cache()
    half = len(items) // 2
    return [found for part in (items[:half], items[half:]) for found in each(part, attempt, tolerated)]
