"""DeepStack: features that the decoder adds to its visual tokens between the first layers (as in Qwen3-VL).

The features of removed tokens are dropped. A token that others were merged into gets the mean of their features, like
its hidden state. A token whose hidden state was replaced by a method gets its own features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vistrim.core.applying import merged_hidden
from vistrim.core.selection import gather_rows
from vistrim.engine.hooks import Hooks


@dataclass(frozen=True)
class Merge:
    """A cut at which tokens were merged.

    Attributes
    ----------
    tokens : Tensor
        ``[batch, rows]`` long: the tokens before the cut.
    into : Tensor
        ``[batch, rows]`` long: the row that absorbs each token, or -1.
    """

    tokens: Tensor
    into: Tensor


FindLeft = Callable[[], tuple[Tensor | None, Sequence[Merge]]]
"""Returns the remaining tokens of the current pass, ``[batch, rows]`` long (None: all), and the merges so far."""


def watch_features_of_layers(decoder: Any, find: FindLeft, hooks: Hooks) -> None:
    """Drop the features of removed tokens, in a decoder that adds features between its layers."""
    own = getattr(decoder, "_deepstack_process", None)
    if own is None:
        return

    @functools.wraps(own)
    def process(hidden: Tensor, visual: Tensor, features: Tensor) -> Tensor:
        rows, merges = find()
        return own(hidden, *((visual, features) if rows is None else left(rows, merges, visual, features)))

    hooks.shadow(decoder, "_deepstack_process", process)


def left(rows: Tensor, merges: Sequence[Merge], visual: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Select the features of the remaining visual tokens.

    Parameters
    ----------
    rows : Tensor
        ``[batch, rows]`` long: the remaining tokens.
    merges : sequence of Merge
        The merges, in order.
    visual : Tensor
        ``[batch, tokens]`` bool, True for visual tokens.
    features : Tensor
        ``[visual tokens of the batch, hidden]``.

    Returns
    -------
    visual : Tensor
        ``[batch, rows]`` bool, True for visual tokens.
    features : Tensor
        ``[remaining visual tokens, hidden]``.
    """
    if merges:
        features = _merged(merges, visual.to(features.device), features)
    number = (visual.flatten().cumsum(0) - 1).view(visual.shape)
    visual = gather_rows(visual, rows, 0, 1)
    return visual, features[gather_rows(number, rows, 0, 1)[visual].to(features.device)]


def _merged(merges: Sequence[Merge], visual: Tensor, features: Tensor) -> Tensor:
    of_tokens = features.new_zeros(*visual.shape, features.shape[-1])
    of_tokens[visual] = features
    for merge in merges:
        tokens = merge.tokens.to(features.device)
        some = merged_hidden(gather_rows(of_tokens, tokens, 0, 1), merge.into)
        of_tokens = of_tokens.scatter(1, tokens[..., None].expand_as(some), some)
    return of_tokens[visual]
