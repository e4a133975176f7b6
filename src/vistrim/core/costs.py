"""FLOPs of prefill and decoding: the one place where they are defined.

A FLOP count is 2 per multiply-add and covers all matrix products and the attention of the decoder layers, with a
gated feed-forward network of three matrices. Embedding, normalisation, RoPE, the output head and the selection
itself are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder that decide its cost."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision tower (plain two-matrix feed-forward) and of the projector behind it."""

    layers: int
    hidden: int
    intermediate: int
    tokens: int
    projector: tuple[int, ...]
    """Widths along the projector, input first: ``(1024, 4096, 4096)`` for LLaVA-1.5-7B."""


def layer_flops(shape: DecoderShape, rows: int, keys: int) -> int:
    """FLOPs of one decoder layer that computes ``rows`` tokens attending to ``keys`` tokens."""
    q_and_o = 2 * shape.hidden * shape.heads * shape.head_dim
    k_and_v = 2 * shape.hidden * shape.kv_heads * shape.head_dim
    ffn = 3 * shape.hidden * shape.intermediate
    attention = 2 * keys * shape.heads * shape.head_dim
    return 2 * rows * (q_and_o + k_and_v + ffn + attention)


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
    return sum(layer_flops(shape, n, n + p) for n, p in zip(rows_per_layer, past, strict=True))


def decode_flops(shape: DecoderShape, past: int, steps: int) -> int:
    """FLOPs of ``steps`` decoding steps of one sample behind ``past`` tokens."""
    return shape.layers * sum(layer_flops(shape, 1, past + step) for step in range(1, steps + 1))


def vision_flops(shape: VisionShape, images: int) -> int:
    """FLOPs of encoding and projecting ``images`` images (patch embedding not counted)."""
    n, d = shape.tokens, shape.hidden
    block = 2 * n * (4 * d * d + 2 * d * shape.intermediate + 2 * n * d)
    projector = 2 * n * sum(a * b for a, b in zip(shape.projector, shape.projector[1:], strict=False))
    return images * (shape.layers * block + projector)
