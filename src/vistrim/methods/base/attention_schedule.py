"""Methods that fix only the number of tokens per layer and step, and rank by the attention of the layer before."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_inputs import LayerTokens


@dataclass(frozen=True)
class AttentionSchedule(Method):
    """Base class: keep the `tokens_kept` visual tokens that receive most attention at the layer before."""

    needs = "attention of one query row at the layer before a cut"

    def is_due(self, step: int) -> bool:
        """Whether anything may be evicted at decoding step ``step``."""
        return True

    @abstractmethod
    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Visual tokens to keep out of ``n`` at ``layer`` and decoding step ``step`` (0 in prefill)."""

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Layers at which the share kept falls."""
        # A share falls if the number kept falls for a prompt so large that rounding hides nothing.
        many = 1 << 40
        kept = [self.tokens_kept(many, layer, 0, depth) for layer in range(depth)]
        return tuple(layer for layer in range(1, depth) if kept[layer] < kept[layer - 1])

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return `tokens_kept` in prefill."""
        return min(held, self.tokens_kept(initial, layer, 0, depth))

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Keep the most attended tokens, as many as the schedule says."""
        counts = tuple(
            self.prefill_count(layer, n, held, 1, tokens.depth)
            for n, held in zip(tokens.initial, tokens.held, strict=True)
        )
        return None if counts == tokens.held else keep_top(tokens.scores, tokens.visual, counts)

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...] | None:
        """Tokens per sample that the schedule leaves at this layer and step."""
        if not self.acts_in_decode or not self.is_due(step):
            return None
        return tuple(self.tokens_kept(n, layer, step, depth) for n in initial)
