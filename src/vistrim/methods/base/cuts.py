"""Cuts at given layers to given shares of the visual tokens, as fitted schedules of ST³ have."""

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from vistrim.core.head_choice import received_in_strongest_heads
from vistrim.core.query_text import text_behind_images
from vistrim.core.schedules import tokens_kept
from vistrim.core.scores import AttentionRows
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.keep_rates import Rows, check_rows

SMALLEST_SHARE = 1e-4
"""Share that stands for 0 when shares are scaled up."""
HALVINGS = 60


@dataclass(frozen=True)
class Cuts(AttentionSchedule):
    """Cut before some layers to given shares of the visual tokens.

    Parameters
    ----------
    layers : tuple of int
        Layers (0-based, at least 1, ascending) that are the first to run with fewer tokens.
    shares : tuple of float
        Share of the visual tokens that entered the decoder, in [0, 1], that stays from each of these layers on. None
        exceeds the one before.
    rows : {"last", "prompt"}
        Ranking rows: the last prompt token, or all text of the prompt after the last image.
    averaged : bool
        Whether tokens are ranked by the mean over all layers since the previous cut, and not by the layer before alone.
    heads : float
        Share of the heads, in (0, 1], that rank: those that attend to the visual tokens most, by layer and sample.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    name = "cuts"
    summary = "Cuts before given layers to given shares of the visual tokens"
    stages = ("prefill",)
    kv_cache = "smaller after each cut"
    source = "arXiv 2412.20105 (generalized)"

    layers: tuple[int, ...]
    shares: tuple[float, ...]
    rows: Rows = "last"
    averaged: bool = False
    heads: float = 1.0

    def __post_init__(self) -> None:
        if not self.layers or len(self.layers) != len(self.shares):
            raise ValueError(f"{len(self.layers)} layers and {len(self.shares)} shares: give one share for each cut")
        if self.layers[0] < 1 or any(a >= b for a, b in pairwise(self.layers)):
            raise ValueError(
                "the layers of the cuts must be at least 1 and ascend: tokens are ranked by the one before"
            )
        if not all(0 <= share <= 1 for share in self.shares):
            raise ValueError("the shares of the cuts must be between 0 and 1")
        if any(a < b for a, b in pairwise(self.shares)):
            raise ValueError("the shares of the cuts must not rise: a removed token does not come back")
        check_rows(self.rows)
        if not 0 < self.heads <= 1:
            raise ValueError(f"heads={self.heads}: must be a share of the heads, above 0 and at most 1")

    @property
    def averages_layers(self) -> bool:  # type: ignore[override]
        """Whether scores are averaged over layers: ``averaged``."""
        return self.averaged

    def retention(self, layer: int) -> float:
        """Return the share of the visual tokens that a layer holds."""
        done = bisect_right(self.layers, layer)
        return self.shares[done - 1] if done else 1.0

    def mean_keep(self, depth: int) -> float:
        """Return the share of the visual tokens that a layer holds, mean over the layers of a decoder."""
        return sum(map(self.retention, range(depth))) / depth

    def scaled(self, power: float) -> "Cuts":
        """Raise all shares to a power, at least 0. Cuts that each drop the same share still do so afterwards.

        Shares of 0 stay 0.
        """
        return replace(self, shares=tuple(share**power if share else 0.0 for share in self.shares))

    def with_mean_keep(self, mean_keep: float, depth: int) -> "Cuts":
        """Scale the shares so that their mean over the layers has a given value.

        Shares of 0 stay 0, unless the mean is out of reach otherwise.

        Raises
        ------
        ValueError
            If the layers before the first cut alone exceed it, or it is above 1.
        """
        least = self.layers[0] / depth
        if not least < mean_keep <= 1:
            raise ValueError(
                f"mean_keep={mean_keep:g}: with the first cut before layer {self.layers[0]} of {depth}, it must be "
                f"above {least:.4g} and at most 1"
            )
        if mean_keep == self.mean_keep(depth):
            return self
        shape = self
        if mean_keep >= self.scaled(0.0).mean_keep(depth):
            shape = replace(self, shares=tuple(max(share, SMALLEST_SHARE) for share in self.shares))
        low, high = 0.0, 1.0
        while shape.scaled(high).mean_keep(depth) > mean_keep and high < 1 << HALVINGS:
            low, high = high, 2 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if shape.scaled(middle).mean_keep(depth) > mean_keep:
                low = middle
            else:
                high = middle
        return shape.scaled(high)

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Return the number of visual tokens that a layer holds, the same at every step."""
        return tokens_kept(n, self.retention(layer))

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """Choose the ranking rows."""
        return None if self.rows == "last" else text_behind_images(visual, prompt)

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Average the attention received over the chosen heads and the ranking rows."""
        if self.heads == 1:
            return attention.received()
        return received_in_strongest_heads(attention, visual, self.heads)
