"""What a decoder layer leaves out for visual tokens, as plain data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class LayerStructure:
    """What one decoder layer computes for visual tokens; the default is everything.

    Attributes
    ----------
    window : int or None
        In prefill a visual token attends to the text before it and to the visual tokens of its image at most
        ``window // 2`` rows and columns away, later ones included; None: causally to all tokens.
    heads : tuple of bool or None
        Attention heads (those of the queries) that see visual tokens. In the others text attends to text alone, and
        visual tokens to nothing. None: all heads.
    ffn : float
        Share of the feed-forward neurons, the first ones, that visual tokens pass through.
    renormalise : bool
        Whether the attention of text in the other heads sums to 1 over the text; otherwise it is as if visual tokens
        were attended to and had values of zero.
    """

    window: int | None = None
    heads: tuple[bool, ...] | None = None
    ffn: float = 1.0
    renormalise: bool = True

    @property
    def cuts_heads(self) -> bool:
        """Whether a head does not see visual tokens."""
        return self.heads is not None and not all(self.heads)

    @property
    def is_full(self) -> bool:
        """Whether nothing is left out."""
        return self.window is None and not self.cuts_heads and self.ffn == 1.0

    def neurons(self, intermediate: int) -> int:
        """Feed-forward neurons of visual tokens: the share rounded to the nearest whole number, at least one."""
        return max(1, math.floor(intermediate * self.ffn + 0.5))

    def seeing_kv_heads(self, heads: int, kv_heads: int) -> list[bool]:
        """Key heads that at least one head which sees visual tokens reads."""
        active = self.heads or (True,) * heads
        group = heads // kv_heads
        return [any(active[first : first + group]) for first in range(0, heads, group)]


@dataclass(frozen=True)
class HeadBlock:
    """Neighbouring query heads of which each key head serves the same number, so that slices (views) do.

    Attributes
    ----------
    query, key : slice
        Heads of the queries, and the heads of keys and values that serve them.
    """

    query: slice
    key: slice


def head_blocks(heads: Sequence[bool], kv_heads: int) -> tuple[tuple[HeadBlock, ...], tuple[HeadBlock, ...]]:
    """Cut the heads of a layer into blocks of those that are active and of those that are not.

    Parameters
    ----------
    heads : sequence of bool
        For each query head whether it is active.
    kv_heads : int
        Key heads; each serves as many neighbouring query heads.

    Returns
    -------
    active, inactive : tuple of HeadBlock
        Together every head once, in order.
    """
    group = len(heads) // kv_heads
    blocks: dict[bool, list[HeadBlock]] = {True: [], False: []}
    for is_active, run in groupby(range(len(heads)), lambda head: bool(heads[head])):
        members = list(run)
        start, end = members[0], members[-1] + 1
        # A run may begin and end inside the query heads of one key head; what is between are whole groups.
        first_whole = min(end, -(-start // group) * group)
        last_whole = max(first_whole, end // group * group)
        for a, b in ((start, first_whole), (first_whole, last_whole), (last_whole, end)):
            if a < b:
                blocks[is_active].append(HeadBlock(slice(a, b), slice(a // group, -(-b // group))))
    return tuple(blocks[True]), tuple(blocks[False])


def runs(flags: Sequence[bool], size: int) -> tuple[slice, ...]:
    """Features of the heads that are flagged, of ``size`` features each: one slice for each run of neighbours."""
    found = []
    for is_flagged, run in groupby(range(len(flags)), lambda head: bool(flags[head])):
        members = list(run)
        if is_flagged:
            found.append(slice(members[0] * size, (members[-1] + 1) * size))
    return tuple(found)
