"""Structural cuts of a decoder layer for visual tokens, as plain data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class LayerStructure:
    """Structural cuts of one decoder layer for visual tokens. By default there are none.

    Attributes
    ----------
    window : int or None
        Side of the attention window in grid cells. In prefill, a visual token attends to the text before it and to the
        visual tokens of its image that are at most ``window // 2`` rows and columns away, including later ones. None:
        causal attention to all tokens.
    heads : tuple of bool or None
        For each query head whether it sees visual tokens. In the other heads, text attends only to text, and visual
        tokens attend to nothing. None: all heads see visual tokens.
    ffn : float
        Fraction of the feed-forward neurons that visual tokens use, starting with the first.
    renormalise : bool
        Whether the attention of text in the other heads sums to 1 over the text. If False, the softmax still includes
        the visual tokens, with zeros as their values.
    """

    window: int | None = None
    heads: tuple[bool, ...] | None = None
    ffn: float = 1.0
    renormalise: bool = True

    @property
    def cuts_heads(self) -> bool:
        """Whether at least one head does not see visual tokens."""
        return self.heads is not None and not all(self.heads)

    @property
    def is_full(self) -> bool:
        """Whether the layer has no cuts."""
        return self.window is None and not self.cuts_heads and self.ffn == 1.0

    def neurons(self, intermediate: int) -> int:
        """Compute the number of feed-forward neurons that visual tokens use.

        Parameters
        ----------
        intermediate : int
            Neurons of the feed-forward network.

        Returns
        -------
        int
            ``intermediate * ffn`` rounded to the nearest integer, at least 1.
        """
        return max(1, math.floor(intermediate * self.ffn + 0.5))

    def seeing_kv_heads(self, heads: int, kv_heads: int) -> list[bool]:
        """Find the key heads that are read by a query head that sees visual tokens.

        Parameters
        ----------
        heads : int
            Query heads.
        kv_heads : int
            Key heads.

        Returns
        -------
        list of bool
            One entry per key head.
        """
        active = self.heads or (True,) * heads
        group = heads // kv_heads
        return [any(active[first : first + group]) for first in range(0, heads, group)]


@dataclass(frozen=True)
class HeadBlock:
    """Consecutive query heads in which every key head serves the same number, so that slices (views) suffice.

    Attributes
    ----------
    query, key : slice
        The query heads, and the key and value heads that serve them.
    """

    query: slice
    key: slice


def head_blocks(heads: Sequence[bool], kv_heads: int) -> tuple[tuple[HeadBlock, ...], tuple[HeadBlock, ...]]:
    """Split the heads of a layer into blocks of active and of inactive heads.

    Parameters
    ----------
    heads : sequence of bool
        For each query head whether it is active.
    kv_heads : int
        Number of key heads. Each serves the same number of consecutive query heads.

    Returns
    -------
    active, inactive : tuple of HeadBlock
        Together they contain every head once, in order.
    """
    group = len(heads) // kv_heads
    blocks: dict[bool, list[HeadBlock]] = {True: [], False: []}
    for is_active, run in groupby(range(len(heads)), lambda head: bool(heads[head])):
        members = list(run)
        start, end = members[0], members[-1] + 1
        # A run may start or end within the query heads of one key head. In between there are whole groups.
        first_whole = min(end, -(-start // group) * group)
        last_whole = max(first_whole, end // group * group)
        for a, b in ((start, first_whole), (first_whole, last_whole), (last_whole, end)):
            if a < b:
                blocks[is_active].append(HeadBlock(slice(a, b), slice(a // group, -(-b // group))))
    return tuple(blocks[True]), tuple(blocks[False])


def runs(flags: Sequence[bool], size: int) -> tuple[slice, ...]:
    """Find the feature ranges of the flagged heads, one slice per run of consecutive heads.

    Parameters
    ----------
    flags : sequence of bool
        One flag per head.
    size : int
        Features per head.

    Returns
    -------
    tuple of slice
        Feature ranges, in order.
    """
    found = []
    for is_flagged, run in groupby(range(len(flags)), lambda head: bool(flags[head])):
        members = list(run)
        if is_flagged:
            found.append(slice(members[0] * size, (members[-1] + 1) * size))
    return tuple(found)
