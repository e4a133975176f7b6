"""What methods see of the tokens at each stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.scores import AttentionRows


@dataclass(frozen=True)
class VisionTokens:
    """What the vision tower computed for the visual tokens of a prompt.

    A feature that several tokens of the tower are merged into has their mean; one that is made of none of them (a
    separator between rows of tiles) has NaN.

    Attributes
    ----------
    attention : mapping of int to Tensor
        For each block that `Method.vision_blocks` asks for, ``[features]`` float32: attention received by each image
        feature of the prompt from the class token or, in a tower without one, from all tokens of its image (mean; those
        outside of a window pay nothing); mean over heads.
    features : Tensor
        ``[features, width]``: the tower's output before the projector; of several feature blocks the deepest one's.
    source : Tensor
        ``[batch, tokens]`` long: which feature each visual token of the prompt is; -1 for text. The features of an
        image follow each other.
    states : mapping of int to Tensor
        For each block that `Method.vision_states` asks for, ``[features, width]``: its output.
    queries, keys : mapping of int to Tensor
        For each block that `Method.vision_keys` asks for, ``[features, head_dim]`` float32: the queries and keys of its
        attention as it multiplies them (with bias, behind RoPE where the tower has it, not scaled); mean over heads.
    class_states : Tensor or None
        ``[features, width]``, for methods that read it: the class token that the tower has put out beside each
        feature's picture; None in a tower without one.
    project : callable or None
        The projector: makes embeddings ``[n, hidden]`` of rows ``[n, width]`` such as ``features`` has; None where no
        visual token is made of one token of the tower alone.
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
        ``[batch, tokens]`` bool.
    images : tuple of tuple of int
        Visual tokens of each image of each sample. An image is here what the vision tower saw by itself: a whole image,
        a tile of one, or a frame of a video.
    grids : tuple of tuple
        Rows and columns of the visual tokens of each image; None where they form no grid.
    image_of : Tensor
        ``[batch, tokens]`` long: the number, in its sample, of the image that a visual token belongs to; -1 for text.
    vision : VisionTokens or None
        For methods that ask for blocks of the vision tower.
    depth : int
        Number of decoder layers.
    guidance : Tensor or None
        ``[batch, tokens]`` float32: attention received in the guide, for methods that rank by one: the sum over all
        layers, heads, rows of the question and rows of the guide's answer.
    question : Tensor or None
        ``[batch, hidden]``, for methods that read it: the decoder's last hidden state, after the final normalisation,
        at the last token of the text behind the sample's last image, which it has read alone.
    whole : tuple of tuple of int
        For each image of each sample (see ``images``), the number of the image or video of the prompt that it is of:
        the tiles of an image have the same, as have the frames of a video.
    words : Tensor or None
        ``[batch, tokens]`` bool, for methods that read them: the text behind the sample's last image, up to where the
        answer begins; where there is none, all text of the prompt. Its embeddings are in ``embeddings``.
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
    """The tokens that a decoder layer would process (prefill) or holds in its cache (decode).

    Attributes
    ----------
    scores : Tensor
        ``[batch, tokens]`` float32. In prefill what `Method.score` made of the attention at the layer before. In
        decode attention received at the layer before from the token being generated, mean over heads; tokens that the
        layer before no longer holds have a negative score. Zeros for a method that ranks by nothing; for one that ranks
        by a guide, in prefill, as `InputTokens.guidance`.
    visual : Tensor
        ``[batch, tokens]`` bool.
    held : tuple of int
        Visual tokens per sample at this layer now.
    initial : tuple of int
        Visual tokens per sample that entered the decoder.
    depth : int
        Number of decoder layers.
    images : tuple of int
        Images (see `InputTokens.images`) per sample in this prompt; empty in decode.
    hidden : Tensor or None
        ``[batch, tokens, hidden]``: the layer's input, in prefill.
    attention : AttentionRows or None
        What ``scores`` was made of, in prefill; None for a method that ranks by a guide or by nothing.
    prompt : Tensor or None
        ``[batch, tokens]`` bool, in prefill: False for padding and for what is behind the prompt (drafts, answers).
    norm : callable or None
        The decoder's final normalisation of hidden states ``[..., hidden]``, in prefill, for methods that rank by
        features; these find the keys of the layer before in ``attention.key``.
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
