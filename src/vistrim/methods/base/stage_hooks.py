"""Hooks of a method at its stages, in the order in which the engine calls them. By default, each keeps everything."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from vistrim.core.model_facts import ModelFacts
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection, keep_top
from vistrim.core.structure import LayerStructure
from vistrim.errors import MethodError
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.methods.base.stage_inputs import InputTokens, LayerTokens

STAGES = {
    "input": "select_input",
    "structure": "structure",
    "prefill": "select_prefill",
    "decode": "decode_counts",
}
"""Stages in their order, each with the hook that a method overrides to act at it."""


class StageHooks:
    """What a method does before the decoder, inside its layers, between them in prefill, and while decoding."""

    name: ClassVar[str]
    """Name of the method, for errors."""

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks of the vision tower whose attention `select_input` needs.

        Parameters
        ----------
        feature_block : int
            Block (0-based) whose output becomes the visual tokens.

        Returns
        -------
        tuple of int
            Blocks, 0-based. Empty by default.

        Raises
        ------
        ValueError
            If the parameters do not fit the vision tower.
        """
        return ()

    def vision_states(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks of the vision tower whose output `select_input` needs.

        Parameters
        ----------
        feature_block : int
            Block (0-based) whose output becomes the visual tokens.

        Returns
        -------
        tuple of int
            Blocks, 0-based. Empty by default.
        """
        return ()

    def vision_keys(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks of the vision tower whose queries and keys `select_input` needs.

        Parameters
        ----------
        feature_block : int
            Block (0-based) whose output becomes the visual tokens.

        Returns
        -------
        tuple of int
            Blocks, 0-based. Empty by default.
        """
        return ()

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose the visual tokens that enter the decoder.

        Parameters
        ----------
        tokens : InputTokens
            The prompt before decoder layer 0.

        Returns
        -------
        Selection or None
            The visual tokens to keep. None keeps all.
        """
        return None

    def input_count(self, sample: SampleSizes) -> int:
        """Compute how many visual tokens of a prompt `select_input` keeps, without tensors.

        Parameters
        ----------
        sample : SampleSizes
            Sizes of the prompt and its images.

        Returns
        -------
        int
            Visual tokens that enter the decoder.

        Raises
        ------
        MethodError
            If the method overrides `select_input` but not this hook.
        """
        if type(self).select_input is StageHooks.select_input:
            return sample.visual
        raise MethodError(f"{self.name} does not tell how many tokens it keeps: override input_count")

    def structure(self, model: ModelFacts) -> tuple[LayerStructure, ...] | None:
        """Return the structural cuts of each layer.

        They apply to the visual tokens that the layer still holds.

        Parameters
        ----------
        model : ModelFacts
            Sizes and properties of the model.

        Returns
        -------
        tuple of LayerStructure or None
            One per decoder layer. None: no layer has any.
        """
        return None

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layers before which `select_prefill` is called.

        Parameters
        ----------
        depth : int
            Number of decoder layers.

        Returns
        -------
        tuple of int
            Decoder layers, 0-based and at least 1. Empty by default.
        """
        return ()

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """Choose the text tokens whose attention ranks visual tokens in prefill.

        Parameters
        ----------
        embeddings : Tensor
            ``[batch, tokens, hidden]``: input of decoder layer 0.
        visual : Tensor
            ``[batch, tokens]`` bool, True for visual tokens.
        prompt : Tensor
            ``[batch, tokens]`` bool. False for padding and for tokens after the prompt (drafts, answers).

        Returns
        -------
        Tensor or None
            ``[batch, tokens]`` bool, True for these tokens. None: the last prompt token.
        """
        return None

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Compute the scores of a cut in prefill from the attention of the query rows.

        Parameters
        ----------
        attention : AttentionRows
            Attention of the query rows.
        visual : Tensor
            ``[batch, tokens]`` bool, True for visual tokens.

        Returns
        -------
        Tensor
            ``[batch, tokens]`` float32. By default, the mean attention received over heads and rows.
        """
        return attention.received()

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Choose the visual tokens that a layer and all later layers process.

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
        return None

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Compute how many visual tokens of a sample `select_prefill` keeps, without tensors.

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
            Visual tokens from this layer on.

        Raises
        ------
        MethodError
            If the method overrides `select_prefill` but not this hook, or the number depends on the content of the
            prompt.
        """
        if type(self).select_prefill is StageHooks.select_prefill:
            return held
        raise MethodError(f"{self.name} does not tell how many tokens it keeps: override prefill_count")

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...] | None:
        """Return how many visual tokens the cache of a layer may hold at a step of decode.

        The engine calls this before it computes any score. It calls `select_decode` only if tokens have to be evicted.
        A count above the number of tokens held has no effect.

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
            Largest number of visual tokens per sample. None: no limit.
        """
        return None

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Choose the visual tokens that stay in the cache of a layer.

        Parameters
        ----------
        layer : int
            Decoder layer, 0-based.
        counts : sequence of int
            Visual tokens to keep per sample.
        tokens : LayerTokens
            The tokens in this layer's cache.

        Returns
        -------
        Selection
            The visual tokens to keep, ``counts[b]`` in sample ``b``. By default, those with the highest score.
        """
        return keep_top(tokens.scores, tokens.visual, counts)
