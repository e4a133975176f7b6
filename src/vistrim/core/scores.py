"""Importance of tokens, computed from a few query rows: no attention map is ever materialised."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_AT_ONCE = 32
"""Query rows whose weights exist at the same time."""


@dataclass(frozen=True)
class Softmax:
    """How an attention layer turns products of queries and keys into weights.

    Attributes
    ----------
    scaling : float
        Factor of the logits, usually ``head_dim ** -0.5``.
    softcap : float or None
        Bound that a tanh puts on the logits (Gemma 2).
    sinks : Tensor or None
        ``[heads]``: logit of a column that takes its share of the weight and is nobody (GPT-OSS).
    """

    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None


def attention_weights(query: Tensor, key: Tensor, visible: Tensor | None, softmax: Softmax) -> Tensor:
    """Attention weights of the given query rows.

    Parameters
    ----------
    query : Tensor
        ``[batch, heads, rows, head_dim]``, after RoPE.
    key : Tensor
        ``[batch, kv_heads, keys, head_dim]``, after RoPE; ``heads`` is a multiple of ``kv_heads``
        (grouped-query attention needs no copy of the keys).
    visible : Tensor or None
        ``[batch, rows, keys]`` bool, True where the row may attend; None if every row sees every key.
    softmax : Softmax
        How the layer makes weights.

    Returns
    -------
    Tensor
        ``[batch, heads, rows, keys]`` float32: the softmax is taken in float32 over the whole row.
    """
    batch, heads, rows, head_dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * rows, head_dim)
    # Scaled before the product, so that half precision does not overflow.
    logits = (grouped * softmax.scaling @ key.transpose(2, 3)).view(batch, heads, rows, keys).float()
    if softmax.softcap is not None:
        logits = torch.tanh(logits / softmax.softcap) * softmax.softcap
    if visible is not None:
        logits = logits.masked_fill(~visible[:, None], -torch.inf)
    if softmax.sinks is None:
        return logits.softmax(-1)
    sinks = softmax.sinks.float().view(1, -1, 1, 1).expand(batch, heads, rows, 1)
    return torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]


@dataclass(frozen=True)
class AttentionRows:
    """A few query rows of one attention layer, whose weights are computed when they are asked for.

    Attributes
    ----------
    query, key, visible, softmax
        As in `attention_weights`.
    tokens : int
        The last ``tokens`` keys are those that are scored; keys before them (earlier turns) only take their share of
        the softmax.
    places : Tensor
        ``[batch, rows]`` long: which of these tokens each query row is.
    counted : Tensor or None
        ``[batch, rows]`` bool: False for rows that only fill up a sample with fewer of them.
    rotary : tuple of Tensor or None
        Cosines and sines ``[batch or 1, tokens, head_dim]`` of the tokens' RoPE; None in vision towers.
    """

    query: Tensor
    key: Tensor
    visible: Tensor | None
    softmax: Softmax
    tokens: int
    places: Tensor
    counted: Tensor | None = None
    rotary: tuple[Tensor, Tensor] | None = None

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights of a block of rows at a time.

        Yields
        ------
        weights : Tensor
            ``[batch, heads, block, tokens]`` float32; 0 for rows that do not count.
        places : Tensor
            ``[batch, block]``.
        """
        for start in range(0, self.query.shape[2], ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            seen = None if self.visible is None else self.visible[:, block]
            weights = attention_weights(self.query[:, :, block], self.key, seen, self.softmax)[..., -self.tokens :]
            if self.counted is not None:
                weights = weights * self.counted[:, None, block, None]
            yield weights, self.places[:, block]

    def rows_per_sample(self) -> Tensor:
        """Query rows that count, ``[batch]`` long."""
        if self.counted is not None:
            return self.counted.sum(1)
        return torch.full_like(self.places[:, 0], self.places.shape[1])

    def received(self) -> Tensor:
        """Attention that each token receives, ``[batch, tokens]`` float32: mean over heads and rows.

        For one query row this is the mean over heads of the eager attention weights.
        """
        if self.counted is None and self.places.shape[1] == 1:
            ((weights, _),) = self.blocks()
            return weights.mean(1)[:, 0]
        total = sum(weights.mean(1).sum(1) for weights, _ in self.blocks())
        return total / self.rows_per_sample().clamp(min=1)[:, None]

    def total(self) -> Tensor:
        """Attention that each token receives, ``[batch, tokens]`` float32: sum over heads and rows."""
        return torch.stack([weights.sum((1, 2)) for weights, _ in self.blocks()]).sum(0)

    def head_mean(self) -> Tensor:
        """Weights of each row, ``[batch, rows, tokens]`` float32: mean over heads."""
        return torch.cat([weights.mean(1) for weights, _ in self.blocks()], 1)
