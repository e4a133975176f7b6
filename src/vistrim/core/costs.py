"""Definition of FLOPs for prefill and decoding.

A multiply-add counts as 2 FLOPs. Counted are all matrix products and the attention of the decoder layers, with a gated
feed-forward network of three matrices. Embedding, normalization, RoPE, the output head and the selection of tokens are
not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vistrim.core.layout import Picture
from vistrim.core.structure import LayerStructure


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder that determine its cost.

    Attributes
    ----------
    layers, hidden : int
        Number of layers, and width of the hidden states.
    intermediate, heads, kv_heads, head_dim : int
        Neurons of the feed-forward network (of the active experts in a mixture of experts) and sizes of the attention.
        If the layers differ, those of the first layer.
    projections : int or None
        Number of weights in all projections of the attention, if it differs from `standard_projections` (gates,
        multi-head latent attention). For latent attention, ``head_dim`` is the mean over logits and values.
    feed_forward : int or None
        Number of weights after the attention that each token is multiplied with, if it differs from
        `standard_feed_forward` (routers, shared and active experts, networks of two matrices).
    cached : int or None
        Number of elements that the cache holds per token and layer, if these are not the keys and values of all heads
        (latents).
    each : tuple of DecoderShape
        The sizes of each layer, if the layers differ. Otherwise empty.
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
        """Number of weights in the projections of queries, keys, values and output."""
        return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def standard_feed_forward(self) -> int:
        """Number of weights in a gated feed-forward network."""
        return 3 * self.hidden * self.intermediate

    @property
    def cached_per_token(self) -> int:
        """Number of elements that the cache holds per token and layer."""
        return 2 * self.kv_heads * self.head_dim if self.cached is None else self.cached

    def at(self, layer: int) -> DecoderShape:
        """Return the sizes of one layer.

        Parameters
        ----------
        layer : int
            Layer number, 0-based.

        Returns
        -------
        DecoderShape
            Its sizes.
        """
        return self.each[layer] if self.each else self


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision tower and its projector.

    Attributes
    ----------
    layers, hidden, intermediate : int
        Number of layers, width of the hidden states, and neurons of the feed-forward networks.
    tokens : int or None
        Tokens in the tower per `Picture`. None: each `Picture` has its own number.
    projector : tuple of int
        Widths of the projector, input first: ``(1024, 4096, 4096)`` for LLaVA-1.5-7B.
    gated : bool
        Whether the feed-forward networks of the tower are gated: three matrices instead of two.
    gated_projector : bool
        Whether one half of the output of the projector's first matrix gates the other half.
    windowed : int
        Number of layers with window attention.
    window : int
        Side of the windows, in visual tokens. Windows are cropped at the edge of the image, tile or frame.
    joint : bool
        Whether attention is computed over all images, tiles or frames of a call together, separated by a mask.
    beside_projector : int
        Multiply-adds per visual token in addition to the projector.
    """

    layers: int
    hidden: int
    intermediate: int
    tokens: int | None
    projector: tuple[int, ...]
    gated: bool = False
    gated_projector: bool = False
    windowed: int = 0
    window: int = 0
    joint: bool = False
    beside_projector: int = 0


@dataclass(frozen=True)
class LayerWork:
    """Rows and query-key pairs that one decoder layer computes.

    Attributes
    ----------
    text, visual : int
        Text rows and visual rows in the projections and the feed-forward network.
    pairs : int
        Query-key pairs in each head that sees visual tokens.
    idle_pairs : int
        Query-key pairs in each head that does not see visual tokens.
    """

    text: int
    visual: int
    pairs: int
    idle_pairs: int = 0


def structured_layer_flops(shape: DecoderShape, structure: LayerStructure, work: LayerWork) -> int:
    """Count the FLOPs of one decoder layer with structural cuts for visual tokens.

    In heads that do not see visual tokens, visual rows have no query and no value, and no key unless the softmax still
    counts them. They take no part in the output projection of these heads.

    Parameters
    ----------
    shape : DecoderShape
        The decoder.
    structure : LayerStructure
        The cuts of the layer.
    work : LayerWork
        The rows and pairs that it computes.

    Returns
    -------
    int
        FLOPs.
    """
    active = shape.heads if structure.heads is None else sum(structure.heads)
    with_value = sum(structure.seeing_kv_heads(shape.heads, shape.kv_heads))
    with_key = with_value if structure.renormalise else shape.kv_heads
    projections = (2 * shape.heads + 2 * shape.kv_heads, 2 * active + with_key + with_value)
    neurons = (shape.intermediate, structure.neurons(shape.intermediate))
    multiply_adds = 0
    for rows, heads, width in zip((work.text, work.visual), projections, neurons, strict=True):
        multiply_adds += rows * shape.hidden * (heads * shape.head_dim + 3 * width)
    # Two products: logits, and the weighted sum of values.
    pairs = active * work.pairs + (shape.heads - active) * work.idle_pairs
    return 2 * (multiply_adds + 2 * pairs * shape.head_dim)


def layer_flops(shape: DecoderShape, rows: int, keys: int) -> int:
    """Count the FLOPs of one decoder layer.

    Parameters
    ----------
    shape : DecoderShape
        Sizes of the layer.
    rows : int
        Tokens that the layer computes.
    keys : int
        Tokens that each of them attends to.

    Returns
    -------
    int
        FLOPs.
    """
    weights = shape.standard_projections if shape.projections is None else shape.projections
    weights += shape.standard_feed_forward if shape.feed_forward is None else shape.feed_forward
    return 2 * (rows * weights + 2 * rows * keys * shape.heads * shape.head_dim)


def prefill_flops(shape: DecoderShape, rows_per_layer: Sequence[int], past: Sequence[int] | None = None) -> int:
    """Count the FLOPs of the prefill of one sample.

    Parameters
    ----------
    shape : DecoderShape
        The decoder.
    rows_per_layer : sequence of int
        Tokens that each layer computes.
    past : sequence of int, optional
        Tokens that the cache of each layer already holds, in a later turn. Default: none.

    Returns
    -------
    int
        FLOPs.
    """
    past = past if past is not None else [0] * len(rows_per_layer)
    rows = zip(rows_per_layer, past, strict=True)
    return sum(layer_flops(shape.at(layer), n, n + p) for layer, (n, p) in enumerate(rows))


def decode_flops(shape: DecoderShape, past: int, steps: int) -> int:
    """Count the FLOPs of decoding one sample.

    Parameters
    ----------
    shape : DecoderShape
        The decoder.
    past : int
        Tokens in the cache before the first decoding step.
    steps : int
        Number of decoding steps.

    Returns
    -------
    int
        FLOPs.
    """
    return sum(
        prefill_flops(shape, [1] * shape.layers, [past + step - 1] * shape.layers) for step in range(1, steps + 1)
    )


def vision_flops(shape: VisionShape, pictures: Sequence[Picture]) -> int | None:
    """Count the FLOPs of encoding and projecting images. The patch embedding is not counted.

    Parameters
    ----------
    shape : VisionShape
        Sizes of the vision tower and the projector.
    pictures : sequence of Picture
        The images, tiles or frames of one call.

    Returns
    -------
    int or None
        FLOPs; None if the number of tokens in the tower is not known for all of them.
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
    """Count the pairs of patches in the same window of an image, tile or frame.

    Returns
    -------
    int
        Ordered pairs, including those of a patch with itself.
    """
    rows, columns = picture.grid or (1, picture.tokens)
    pairs = _pairs_in_stretches(rows, side) * _pairs_in_stretches(columns, side)
    return pairs * (patches // picture.tokens) ** 2


def _pairs_in_stretches(length: int, side: int) -> int:
    """Count the pairs of positions in the same segment, for a length divided into segments of ``side``.

    Returns
    -------
    int
        Ordered pairs, including those of a position with itself.
    """
    whole, rest = divmod(length, side)
    return whole * side * side + rest * rest
