"""DeepStack: features that the decoder adds to its visual tokens between the first layers (Qwen3-VL and its kin)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from vistrim.core.selection import gather_rows
from vistrim.engine.hooks import Hooks

FindRows = Callable[[], Tensor | None]
"""Which tokens of the running pass are left, ``[batch, rows]`` long; None: all of them."""


def watch_features_of_layers(decoder: Any, find: FindRows, hooks: Hooks) -> None:
    """Have the features of removed tokens left out, in a decoder that adds features between its layers."""
    own = getattr(decoder, "_deepstack_process", None)
    if own is None:
        return

    @functools.wraps(own)
    def process(hidden: Tensor, visual: Tensor, features: Tensor) -> Tensor:
        rows = find()
        return own(hidden, *((visual, features) if rows is None else left(rows, visual, features)))

    hooks.shadow(decoder, "_deepstack_process", process)


def left(rows: Tensor, visual: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Cut features down to the visual tokens that are left.

    Parameters
    ----------
    rows : Tensor
        ``[batch, rows]`` long: the tokens that are left.
    visual : Tensor
        ``[batch, tokens]`` bool.
    features : Tensor
        ``[visual tokens of the batch, hidden]``.

    Returns
    -------
    visual : Tensor
        ``[batch, rows]`` bool.
    features : Tensor
        ``[visual tokens that are left, hidden]``.
    """
    number = (visual.flatten().cumsum(0) - 1).view(visual.shape)
    visual = gather_rows(visual, rows, 0, 1)
    return visual, features[gather_rows(number, rows, 0, 1)[visual].to(features.device)]
