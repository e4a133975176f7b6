"""Attention scores of tokens from a few query rows, without materializing an attention map."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_AT_ONCE = 32
"""Query rows whose attention weights are held in memory at a time."""


@dataclass(frozen=True)
class Softmax:
    """Parameters of the softmax of an attention layer.

    Attributes
    ----------
    scaling : float
        Factor applied to the logits, usually ``head_dim ** -0.5``.
    softcap : float or None
        Soft cap of the logits by a tanh (Gemma 2).
    sinks : Tensor or None
        ``[heads]``: logits of the attention sinks (GPT-OSS). A sink receives weight but is not a token.
    """

    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None


def attention_weights(query: Tensor, key: Tensor, visible: Tensor | None, softmax: Softmax) -> Tensor:
    """Compute the attention weights of the given query rows.

    Parameters
    ----------
    query : Tensor
        ``[batch, heads, rows, head_dim]``, after RoPE.
    key : Tensor
        ``[batch, kv_heads, keys, head_dim]``, after RoPE. ``heads`` is a multiple of ``kv_heads``; grouped-query
        attention does not copy the keys.
    visible : Tensor or None
        ``[batch, rows, keys]`` bool, True where the row may attend. None: every row sees every key.
    softmax : Softmax
        Parameters of the layer's softmax.

    Returns
    -------
    Tensor
        ``[batch, heads, rows, keys]`` float32. The softmax is computed in float32 over the whole row.
    """
    batch, heads, rows, head_dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * rows, head_dim)
    # Scaled before the product to avoid overflow in half precision. With many keys and one row, a CPU multiplies twice
    # as fast in this order.
    logits = (key @ (grouped * softmax.scaling).transpose(2, 3)).transpose(2, 3)
    logits = logits.reshape(batch, heads, rows, keys).float()
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
    """A few query rows of one attention layer. Their weights are computed on demand.

    Attributes
    ----------
    query, key, visible, softmax
        As in `attention_weights`.
    tokens : int
        Number of keys that are scored, counted from the end. Keys before them (earlier turns) only take part in the
        softmax.
    places : Tensor
        ``[batch, rows]`` long: index of each query row among these tokens.
    counted : Tensor or None
        ``[batch, rows]`` bool, False for rows that pad a sample with fewer query rows. None: all rows count.
    rotary : tuple of Tensor or None
        RoPE cosines and sines of the tokens, ``[batch or 1, tokens, head_dim]``. None in vision towers.
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
        """Compute the attention weights, one block of rows at a time.

        Yields
        ------
        weights : Tensor
            ``[batch, heads, block, tokens]`` float32. 0 for rows that do not count.
        places : Tensor
            ``[batch, block]`` long: index of each row among the tokens.
        """
        for start in range(0, self.query.shape[2], ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            seen = None if self.visible is None else self.visible[:, block]
            weights = attention_weights(self.query[:, :, block], self.key, seen, self.softmax)[..., -self.tokens :]
            if self.counted is not None:
                weights = weights * self.counted[:, None, block, None]
            yield weights, self.places[:, block]

    def rows_per_sample(self) -> Tensor:
        """Count the query rows of each sample.

        Returns
        -------
        Tensor
            ``[batch]`` long.
        """
        if self.counted is not None:
            return self.counted.sum(1)
        return torch.full_like(self.places[:, 0], self.places.shape[1])

    def received(self) -> Tensor:
        """Compute the mean attention that each token receives, over heads and query rows.

        For one query row this is the mean over heads of the eager attention weights.

        Returns
        -------
        Tensor
            ``[batch, tokens]`` float32.
        """
        if self.counted is None and self.places.shape[1] == 1:
            ((weights, _),) = self.blocks()
            return weights.mean(1)[:, 0]
        total = sum(weights.mean(1).sum(1) for weights, _ in self.blocks())
        return total / self.rows_per_sample().clamp(min=1)[:, None]

    def total(self) -> Tensor:
        """Compute the total attention that each token receives, over heads and query rows.

        Returns
        -------
        Tensor
            ``[batch, tokens]`` float32.
        """
        return torch.stack([weights.sum((1, 2)) for weights, _ in self.blocks()]).sum(0)

    def head_mean(self) -> Tensor:
        """Compute the attention weights of each query row, averaged over heads.

        Returns
        -------
        Tensor
            ``[batch, rows, tokens]`` float32.
        """
        return torch.cat([weights.mean(1) for weights, _ in self.blocks()], 1)
