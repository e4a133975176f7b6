"""A few of many questions, as a model receives them."""

from collections.abc import Sequence
from typing import Any

from vistrim.evaluation.item_prompts import format_items
from vistrim.evaluation.items import Item

MOST = 8


def typical(items: Sequence[Item]) -> list[Item]:
    """Choose a few questions, evenly spaced among all.

    Parameters
    ----------
    items : sequence of Item
        The questions, at least one.

    Returns
    -------
    list of Item
        At most `MOST`.
    """
    count = min(MOST, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def typical_inputs(processor: Any, items: Sequence[Item]) -> Any:
    """Format a few questions, evenly spaced among all, as one batch.

    Parameters
    ----------
    processor : ProcessorMixin
        As `vistrim.load` returns it.
    items : sequence of Item
        The questions, at least one.

    Returns
    -------
    BatchFeature
        Inputs of ``model.generate``, on the CPU, for `vistrim.at_budget`.

    Raises
    ------
    PromptError
        If a question contains a special token for images.
    """
    return format_items(processor, typical(items))
