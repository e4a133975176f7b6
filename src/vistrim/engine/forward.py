"""State of one forward pass of the decoder. It lives in the thread that runs it and ends with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.engine.recorder import Recorder
from vistrim.engine.tokens import TokenMap


@dataclass
class Forward:
    """One forward pass of the decoder.

    Attributes
    ----------
    length : int
        Tokens of this pass before trimming.
    past : int
        Tokens of the sequence before this pass, the removed ones included.
    cache : Cache or None
        Its layers are trimmable.
    recorder : Recorder
        Collects the measurements.
    tokens : TokenMap or None
        The rows that the current layer processes; None where they are all text and nothing is to be trimmed.
    initial : tuple of int
        Visual tokens per sample in this pass before trimming.
    image_sizes : list of int
        Visual tokens per image.
    ranking : Tensor or None
        ``[batch]`` long: slot of the token whose attention ranks the visual tokens.
    trimmed : bool
        Whether rows have been removed in this pass.
    targets : list
        Decode: visual tokens per sample that each layer's cache is to be cut down to; None: leave it.
    tapped : int or None
        The layer whose attention is to be read.
    scores : Tensor or None
        ``[batch, rows]``: attention received at the tapped layer.
    scored : TokenMap or None
        Decode: the tokens that ``scores`` belongs to.
    memo : dict
        Tensors shared by all layers between two cuts.
    """

    length: int
    past: int
    cache: Cache | None
    recorder: Recorder
    tokens: TokenMap | None = None
    initial: tuple[int, ...] = ()
    image_sizes: list[int] = field(default_factory=list)
    ranking: Tensor | None = None
    trimmed: bool = False
    targets: list[tuple[int, ...] | None] = field(default_factory=list)
    tapped: int | None = None
    scores: Tensor | None = None
    scored: TokenMap | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    def remember(self, key: Any, held: Any, make: Callable[[], Any]) -> Any:
        """Make a tensor once for all layers that share it; ``held`` keeps alive what ``key`` identifies by address."""
        if key not in self.memo:
            self.memo[key] = held, make()
        return self.memo[key][1]


def visible_columns(mask: Tensor | None, rows: Tensor, queries: int, columns: int) -> Tensor:
    """Columns that one query row per sample may attend to.

    Parameters
    ----------
    mask : Tensor or None
        The layer's mask, ``[batch or 1, 1, queries, columns]`` bool or additive float; None: causal.
    rows : Tensor
        ``[batch]`` long: the query row.
    queries, columns : int
        Rows and columns of the layer.

    Returns
    -------
    Tensor
        ``[batch, 1, columns]`` bool.
    """
    if mask is None:
        place = torch.arange(columns, device=rows.device)
        return (place <= (rows + columns - queries)[:, None])[:, None]
    mask = mask.expand(rows.shape[0], -1, -1, -1)[
        torch.arange(rows.shape[0], device=mask.device), 0, rows.to(mask.device)
    ]
    visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return visible[:, None]
