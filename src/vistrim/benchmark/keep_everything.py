"""The method that keeps everything: what the engine takes, and what its cache gains, by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_inputs import LayerTokens
from vistrim.methods.st3 import ST3

KEEP_EVERYTHING = "keep-everything"
"""Label of its runs."""


@dataclass(frozen=True)
class KeepEverything(Method):
    """Ranks wherever the balanced preset of `ST3` cuts, is asked at every decoding step, and keeps every token.

    In prefill no rows are copied and no layer gets shorter, so that nothing makes up for what the engine itself takes.
    In decoding it shows what the engine takes together with what its cache gains, which grows in place where
    transformers' own copies every layer at every step: the part of other methods' gain that is not due to trimming. It
    computes what the untouched model does, bit by bit. It is no method to choose: only the benchmark knows it.
    """

    name = KEEP_EVERYTHING
    summary = "Keeps every token: the engine by itself"
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
