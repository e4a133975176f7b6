"""The method that keeps everything: overhead of the engine, and gain of its cache, without any trimming."""

from collections.abc import Sequence
from dataclasses import dataclass

from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_inputs import LayerTokens
from vistrim.methods.st3 import ST3

KEEP_EVERYTHING = "keep-everything"
"""Label of the method's runs."""


@dataclass(frozen=True)
class KeepEverything(Method):
    """Ranks at the cuts of the balanced preset of `ST3`, runs at every decoding step, and keeps every token.

    In prefill, no rows are copied and no layer gets shorter, so that it shows the overhead of the engine. In decoding,
    it shows this overhead together with the gain of the engine's cache, which grows in place, while the cache of
    transformers copies every layer at every step. This is the part of other methods' gain that is not due to trimming.
    Results are bit-identical to those of the untouched model. The method is for benchmarks and checks only, and is not
    registered.
    """

    name = KEEP_EVERYTHING
    summary = "Keeps every token: overhead of the engine"
    stages = ("prefill", "decode")
    kv_cache = "full"
    source = "benchmark"

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """The layers before which the balanced preset cuts."""
        return ST3.preset("balanced").prefill_layers(depth)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Rank, and keep all tokens."""
        return keep_top(tokens.scores, tokens.visual, tokens.held)

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...]:
        """All tokens that there are."""
        return tuple(initial)
