"""Inputs of the hooks of a method: the tokens at each stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.scores import AttentionRows


@dataclass(frozen=True)
class VisionTokens:
    """Outputs of the vision tower for the visual tokens of a prompt.

    If several tokens of the tower form one feature, it has their mean. A feature that is made of none of them (a
    separator between rows of tiles) has NaN.

    Attributes
    ----------
    attention : mapping of int to Tensor
        For each block of `Method.vision_blocks`, ``[features]`` float32: attention that each image feature of the
        prompt receives, mean over heads. It comes from the class token or, in a tower without one, from all tokens of
        the image (their mean; tokens outside the attention window contribute zero).
    features : Tensor
        ``[features, width]``: output of the tower before the projector. With several feature blocks, that of the
        deepest one.
    source : Tensor
        ``[batch, tokens]`` long: index of the feature of each visual token of the prompt, -1 for text. The features of
        an image are contiguous.
    states : mapping of int to Tensor
        For each block of `Method.vision_states`, ``[features, width]``: its output.
    queries, keys : mapping of int to Tensor
        For each block of `Method.vision_keys`, ``[features, head_dim]`` float32: queries and keys of its attention,
        mean over heads. They include the bias and RoPE, if the tower has it, but no scaling.
    class_states : Tensor or None
        ``[features, width]``, for methods that read it: final class token of the image, tile or frame of each feature.
        None in a tower without a class token.
    project : callable or None
        The projector: maps rows ``[n, width]``, such as those of ``features``, to embeddings ``[n, hidden]``. None if
        no visual token is made of a single token of the tower.
    """

    attention: Mapping[int, Tensor]
    features: Tensor
    source: Tensor
    states: Mapping[int, Tensor] = field(default_factory=dict)
    queries: Mapping[int, Tensor] = field(default_factory=dict)
    keys: Mapping[int, Tensor] = field(default_factory=dict)
    class_states: Tensor | None = None
    project: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class InputTokens:
    """The prompt before decoder layer 0.

    Attributes
    ----------
    embeddings : Tensor
        ``[batch, tokens, hidden]``: word embeddings, and projected image features at visual tokens.
    visual : Tensor
        ``[batch, tokens]`` bool, True for visual tokens.
    images : tuple of tuple of int
        Number of visual tokens of each image of each sample. An image is here a separate input of the vision tower: a
        whole image, one of its tiles, or a frame of a video.
    grids : tuple of tuple of (tuple of int or None)
        Rows and columns of the visual tokens of each image. None: they form no grid.
    image_of : Tensor
        ``[batch, tokens]`` long: number, within the sample, of the image that a visual token belongs to; -1 for text.
    vision : VisionTokens or None
        Outputs of the vision tower, for methods that request its blocks.
    depth : int
        Number of decoder layers.
    guidance : Tensor or None
        ``[batch, tokens]`` float32, for methods that rank by a guide model: attention received in the guide model,
        summed over all layers and heads and over the rows of the question and of the answer of the guide model.
    question : Tensor or None
        ``[batch, hidden]``, for methods that read it: last hidden state of the decoder, after the final normalization,
        at the last token of the text after the last image of the sample. The decoder has read this text without the
        rest of the prompt.
    whole : tuple of tuple of int
        For each image of each sample (see ``images``), the number of the image or video of the prompt that it belongs
        to. All tiles of an image have the same number, and so do all frames of a video.
    words : Tensor or None
        ``[batch, tokens]`` bool, for methods that read it, True for the question: the text after the last image of the
        sample, up to the start of the answer. If there is none, all text of the prompt.
    """

    embeddings: Tensor
    visual: Tensor
    images: tuple[tuple[int, ...], ...]
    grids: tuple[tuple[Grid | None, ...], ...]
    image_of: Tensor
    vision: VisionTokens | None = None
    depth: int = 0
    guidance: Tensor | None = None
    question: Tensor | None = None
    whole: tuple[tuple[int, ...], ...] = ()
    words: Tensor | None = None


@dataclass(frozen=True)
class LayerTokens:
    """The tokens before a decoder layer (prefill) or in its cache (decode).

    Attributes
    ----------
    scores : Tensor
        ``[batch, tokens]`` float32. In prefill, the result of `Method.score` for the attention at the layer before. In
        decode, the attention at the layer before from `Method.evicts_by`, mean over heads and rows; tokens that the
        layer before did not hold when it was last read have a negative score. For a method that ranks by no attention,
        zeros. For a method that ranks by a guide model, in prefill, `InputTokens.guidance`.
    visual : Tensor
        ``[batch, tokens]`` bool, True for visual tokens.
    held : tuple of int
        Visual tokens per sample that this layer holds now.
    initial : tuple of int
        Visual tokens per sample that entered the decoder.
    depth : int
        Number of decoder layers.
    images : tuple of int
        Number of images (see `InputTokens.images`) per sample in this prompt. 1 each for a method that does not count
        them (`Method.counts_images`). Empty in decode.
    hidden : Tensor or None
        ``[batch, tokens, hidden]``: input of the layer, in prefill.
    attention : AttentionRows or None
        Attention from which ``scores`` was computed, in prefill. None for a method that ranks by a guide model or by no
        attention.
    prompt : Tensor or None
        ``[batch, tokens]`` bool, in prefill. False for padding and for tokens after the prompt (drafts, answers).
    norm : callable or None
        Final normalization of the decoder for hidden states ``[..., hidden]``, in prefill, for methods that rank by
        features. The keys of the layer before are in ``attention.key``.
    numbers : callable or None
        In decode, returns ``[batch, tokens]`` long: number of each visual token among those of its sample before any
        trimming, in all turns so far. Undefined for text.
    """

    scores: Tensor
    visual: Tensor
    held: tuple[int, ...]
    initial: tuple[int, ...]
    depth: int
    images: tuple[int, ...] = ()
    hidden: Tensor | None = None
    attention: AttentionRows | None = None
    prompt: Tensor | None = None
    norm: Callable[[Tensor], Tensor] | None = None
    numbers: Callable[[], Tensor] | None = None
