"""FLOPs of prefill and decoding: the one place where they are defined.

A FLOP count is 2 per multiply-add and covers all matrix products and the attention of the decoder layers, with a
gated feed-forward network of three matrices. Embedding, normalisation, RoPE, the output head and the selection
itself are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vistrim.core.layout import Picture
from vistrim.core.structure import LayerStructure


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder that decide its cost.

    Attributes
    ----------
    layers, hidden : int
        Number of layers, and width of the hidden states.
    intermediate, heads, kv_heads, head_dim : int
        Neurons of the feed-forward network (of the active experts, where there are some) and sizes of the attention: of
        every layer or, where layers differ, of the first.
    projections : int or None
        Weights of all projections of the attention, where they are not those of queries, keys, values and output of
        these heads (gates, multi-head latent attention; ``head_dim`` of the latter is the mean over logits and values).
    feed_forward : int or None
        Weights behind the attention that each token is multiplied with, where they are not three matrices of
        ``intermediate`` neurons: routers, shared and chosen experts, two matrices.
    cached : int or None
        Numbers that the cache holds for a token, where they are not keys and values of all heads (latents).
    each : tuple of DecoderShape
        Where layers differ: the sizes of each.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    projections: int | None = None
    feed_forward: int | None = None
    cached: int | None = None
    each: tuple[DecoderShape, ...] = ()

    @property
    def standard_projections(self) -> int:
        """Weights of the projections to queries, keys and values, and of the output."""
        return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def standard_feed_forward(self) -> int:
        """Weights of a gated feed-forward network."""
        return 3 * self.hidden * self.intermediate

    @property
    def cached_per_token(self) -> int:
        """Numbers that the cache of a layer holds for a token."""
        return 2 * self.kv_heads * self.head_dim if self.cached is None else self.cached

    def at(self, layer: int) -> DecoderShape:
        """Sizes of a layer."""
        return self.each[layer] if self.each else self


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision tower and of the projector behind it."""

    layers: int
    hidden: int
    intermediate: int
    tokens: int | None
    """Tokens of every picture in the tower; None: what a picture says itself."""
    projector: tuple[int, ...]
    """Widths along the projector, input first: ``(1024, 4096, 4096)`` for LLaVA-1.5-7B."""
    gated: bool = False
    """Whether the feed-forward networks of the tower have three matrices instead of two."""
    gated_projector: bool = False
    """Whether half of what the projector's first matrix makes are gates of the other half."""
    windowed: int = 0
    """Layers in which tokens see only a window of their picture."""
    window: int = 0
    """Side of these windows, in visual tokens; they are cut off at the edge of a picture."""
    joint: bool = False
    """Whether attention is computed between all pictures of a call, which a mask keeps apart."""
    beside_projector: int = 0
    """Multiply-adds for each visual token besides those of the projector."""


@dataclass(frozen=True)
class LayerWork:
    """Rows and pairs of tokens that one decoder layer really computes.

    Attributes
    ----------
    text, visual : int
        Rows in the projections and the feed-forward network.
    pairs : int
        Pairs of a query and a key in each head that sees visual tokens.
    idle_pairs : int
        The same in each head that does not.
    """

    text: int
    visual: int
    pairs: int
    idle_pairs: int = 0


def structured_layer_flops(shape: DecoderShape, structure: LayerStructure, work: LayerWork) -> int:
    """FLOPs of one decoder layer that leaves some things out for its visual rows.

    In heads that do not see visual tokens their rows have no query, key (unless these are still counted in the softmax)
    and value, and no part in the output projection.
    """
    active = shape.heads if structure.heads is None else sum(structure.heads)
    with_value = sum(structure.seeing_kv_heads(shape.heads, shape.kv_heads))
    with_key = with_value if structure.renormalise else shape.kv_heads
    projections = (2 * shape.heads + 2 * shape.kv_heads, 2 * active + with_key + with_value)
    neurons = (shape.intermediate, structure.neurons(shape.intermediate))
    multiply_adds = 0
    for rows, heads, width in zip((work.text, work.visual), projections, neurons, strict=True):
        multiply_adds += rows * shape.hidden * (heads * shape.head_dim + 3 * width)
    # Logits, and the sum of values.
    pairs = active * work.pairs + (shape.heads - active) * work.idle_pairs
    return 2 * (multiply_adds + 2 * pairs * shape.head_dim)


def layer_flops(shape: DecoderShape, rows: int, keys: int) -> int:
    """FLOPs of one decoder layer that computes ``rows`` tokens attending to ``keys`` tokens."""
    weights = shape.standard_projections if shape.projections is None else shape.projections
    weights += shape.standard_feed_forward if shape.feed_forward is None else shape.feed_forward
    return 2 * (rows * weights + 2 * rows * keys * shape.heads * shape.head_dim)


def prefill_flops(shape: DecoderShape, rows_per_layer: Sequence[int], past: Sequence[int] | None = None) -> int:
    """FLOPs of a prefill in which layer ``l`` computes ``rows_per_layer[l]`` tokens of one sample.

    Parameters
    ----------
    shape : DecoderShape
        The decoder.
    rows_per_layer : sequence of int
        Tokens computed per layer.
    past : sequence of int, optional
        Tokens that each layer's cache held before, for a later turn.
    """
    past = past if past is not None else [0] * len(rows_per_layer)
    rows = zip(rows_per_layer, past, strict=True)
    return sum(layer_flops(shape.at(layer), n, n + p) for layer, (n, p) in enumerate(rows))


def decode_flops(shape: DecoderShape, past: int, steps: int) -> int:
    """FLOPs of ``steps`` decoding steps of one sample behind ``past`` tokens."""
    return sum(
        prefill_flops(shape, [1] * shape.layers, [past + step - 1] * shape.layers) for step in range(1, steps + 1)
    )


def vision_flops(shape: VisionShape, pictures: Sequence[Picture]) -> int | None:
    """FLOPs of encoding and projecting the pictures of a call (patch embedding not counted).

    None if the size of a picture in the tower is not known.
    """
    d, steps = shape.hidden, list(pairwise(shape.projector))
    matrices = 4 * d * d + (3 if shape.gated else 2) * d * shape.intermediate
    projector = sum(a * b for a, b in steps) + shape.beside_projector
    if shape.gated_projector:
        projector -= steps[1][0] * steps[1][1] // 2
    sizes = [n for picture in pictures if (n := picture.patches or shape.tokens) is not None]
    if len(sizes) < len(pictures):
        return None
    pairs = (shape.layers - shape.windowed) * (sum(sizes) ** 2 if shape.joint else sum(n * n for n in sizes))
    if shape.windowed:
        windows = sum(_window_pairs(*of, shape.window) for of in zip(pictures, sizes, strict=True))
        pairs += shape.windowed * windows
    projected = sum(picture.tokens if picture.projected is None else picture.projected for picture in pictures)
    return 2 * (shape.layers * sum(sizes) * matrices + 2 * pairs * d + projected * projector)


def _window_pairs(picture: Picture, patches: int, side: int) -> int:
    """Pairs of patches in the same window of a picture."""
    rows, columns = picture.grid or (1, picture.tokens)
    pairs = _pairs_in_stretches(rows, side) * _pairs_in_stretches(columns, side)
    return pairs * (patches // picture.tokens) ** 2


def _pairs_in_stretches(length: int, side: int) -> int:
    """Pairs of places in the same stretch, of a length cut into stretches."""
    whole, rest = divmod(length, side)
    return whole * side * side + rest * rest
