"""The method that keeps everything: what it takes is the engine's overhead."""

from collections.abc import Sequence
from dataclasses import dataclass

from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base import Method
from vistrim.methods.st3 import ST3
from vistrim.methods.views import LayerTokens

KEEP_EVERYTHING = "keep-everything"
"""Label of its runs."""


@dataclass(frozen=True)
class KeepEverything(Method):
    """Ranks wherever the balanced preset of `ST3` does, is asked at every decoding step, and keeps every token.

    No rows are copied and no step gets shorter, so that nothing makes up for what the engine itself takes. It computes
    what the untouched model does, bit by bit. It is no method to choose: only the benchmark knows it.
    """

    name = KEEP_EVERYTHING
    summary = "Keeps every token: the engine's overhead"
    stages = ("prefill", "decode")
    kv_cache = "full"
    source = "benchmark"

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """The layers before which the balanced preset cuts."""
        return ST3.preset("balanced").prefill_layers(depth)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Rank, and choose all."""
        return keep_top(tokens.scores, tokens.visual, tokens.held)

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...]:
        """As many as there are."""
        return tuple(initial)
