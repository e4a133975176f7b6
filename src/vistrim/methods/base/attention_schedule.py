"""Methods that set only the number of tokens per layer and step, and rank by attention."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from vistrim.core.selection import Selection, keep_top
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_inputs import LayerTokens


@dataclass(frozen=True)
class AttentionSchedule(Method):
    """Base class of schedules that rank by the attention at the layer before.

    Of the visual tokens, the `tokens_kept` with the most attention stay.
    """

    counts_images = False

    needs = "attention of one query row at the layer before a cut"

    def is_due(self, step: int) -> bool:
        """Return whether tokens may be evicted at a step of decode.

        Parameters
        ----------
        step : int
            Number of generated tokens in the sequence, including the one being processed.

        Returns
        -------
        bool
            True by default.
        """
        return True

    @abstractmethod
    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Compute the number of visual tokens to keep.

        Parameters
        ----------
        n : int
            Visual tokens of the sample that entered the decoder.
        layer : int
            Decoder layer, 0-based.
        step : int
            Step of decode; 0 in prefill.
        depth : int
            Number of decoder layers.

        Returns
        -------
        int
            Visual tokens to keep, from 0 to ``n``.
        """

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layers at which the number of kept tokens falls.

        Parameters
        ----------
        depth : int
            Number of decoder layers.

        Returns
        -------
        tuple of int
            Decoder layers, 0-based and at least 1.
        """
        # The number falls for a prompt so large that rounding has no effect.
        many = 1 << 40
        kept = [self.tokens_kept(many, layer, 0, depth) for layer in range(depth)]
        return tuple(layer for layer in range(1, depth) if kept[layer] < kept[layer - 1])

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Compute the number of visual tokens to keep in prefill.

        Parameters
        ----------
        layer : int
            Decoder layer of the cut, 0-based.
        initial : int
            Visual tokens of the sample that entered the decoder.
        held : int
            Visual tokens of the sample before the cut.
        images : int
            Images, tiles or frames of the prompt.
        depth : int
            Number of decoder layers.

        Returns
        -------
        int
            `tokens_kept` at step 0, at most ``held``.
        """
        return min(held, self.tokens_kept(initial, layer, 0, depth))

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Keep the tokens with the most attention, in the number that the schedule sets.

        Parameters
        ----------
        layer : int
            Decoder layer of the cut, 0-based.
        tokens : LayerTokens
            The tokens before this layer.

        Returns
        -------
        Selection or None
            The visual tokens to keep. None keeps all.
        """
        counts = tuple(
            self.prefill_count(layer, n, held, 1, tokens.depth)
            for n, held in zip(tokens.initial, tokens.held, strict=True)
        )
        return None if counts == tokens.held else keep_top(tokens.scores, tokens.visual, counts)

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...] | None:
        """Return the number of tokens that the schedule leaves at a layer and step.

        Parameters
        ----------
        layer : int
            Decoder layer, 0-based.
        step : int
            Number of generated tokens in the sequence, including the one being processed.
        initial : sequence of int
            Visual tokens per sample that entered the decoder.
        left : sequence of int
            Visual tokens per sample that this layer held after prefill.
        depth : int
            Number of decoder layers.

        Returns
        -------
        tuple of int or None
            Visual tokens per sample. None: no token is evicted at this step.
        """
        if not self.acts_in_decode or not self.is_due(step):
            return None
        return tuple(self.tokens_kept(n, layer, step, depth) for n in initial)
