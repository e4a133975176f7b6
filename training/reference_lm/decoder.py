"""SmolLM2 with an adapter, as pure functions of its weights.

The forward pass of training: what the stock model computes with the adapter merged into its weights, without the
parts that only generation needs. The context (system message and image) is attended causally, without a mask; each
packed question then attends to the context and to itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


class Decoder(nn.Module):
    """A frozen Llama with low-rank additions to all of its projections.

    Parameters
    ----------
    base : transformers.LlamaForCausalLM
        Its weights are used in place, in fp32.
    rank, alpha : int
        Of the adapter: weights are ``W + alpha / rank * B @ A``.
    dtype : torch.dtype
        Of the computation.
    """

    def __init__(self, base: Any, rank: int = 32, alpha: int = 32, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = base.config
        self.base = base.requires_grad_(False)
        self.dtype = dtype
        self.scale = alpha / rank
        self.rank, self.alpha = rank, alpha
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in self._projections():
            outputs, inputs = weight.shape
            key = name.replace(".", "/")
            self.down[key] = nn.Parameter(torch.randn(rank, inputs) * inputs**-0.5)
            self.up[key] = nn.Parameter(torch.zeros(outputs, rank))

    def _projections(self) -> Iterator[tuple[str, torch.Tensor]]:
        for i, layer in enumerate(self.base.model.layers):
            for projection in PROJECTIONS:
                yield f"model.layers.{i}.{projection}", layer.get_submodule(projection).weight

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """The adapter by the names of its files."""
        state = {}
        for name, _ in self._projections():
            key = name.replace(".", "/")
            state[f"{name}.lora_A"], state[f"{name}.lora_B"] = self.down[key], self.up[key]
        return state

    @torch.no_grad()
    def load_adapter(self, state: dict[str, torch.Tensor]) -> None:
        """Take over an adapter read from its files; the counterpart of `adapter_state`."""
        for name, parameter in self.adapter_state().items():
            parameter.copy_(state[name])

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.embedding(tokens, self.base.model.embed_tokens.weight).to(self.dtype)

    def forward(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        context: int,
        mask: torch.Tensor | None,
        adapted: bool = True,
    ) -> torch.Tensor:
        """Hidden states ``(B, S, width)`` after the final norm.

        Parameters
        ----------
        embeddings : torch.Tensor
            ``(B, S, width)``.
        positions : torch.Tensor
            ``(B, S)`` int64.
        context : int
            Tokens at the start that attend causally; all S where there is no mask.
        mask : torch.Tensor or None
            ``(B, 1, S - context, S)`` bool for the others.
        adapted : bool
            With the adapter, or the base as it is.
        """
        rotary = self._rotary(positions)
        hidden = embeddings.to(self.dtype)
        for i, layer in enumerate(self.base.model.layers):
            hidden = self._layer(hidden, layer, self._weights(i, layer, adapted), rotary, context, mask)
        return self._norm(hidden, self.base.model.norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits, fp32."""
        return F.linear(hidden, self.base.model.embed_tokens.weight.to(self.dtype)).float()

    def _weights(self, number: int, layer: nn.Module, adapted: bool) -> list[torch.Tensor]:
        weights = []
        for projection in PROJECTIONS:
            weight = layer.get_submodule(projection).weight
            if adapted:
                key = f"model.layers.{number}.{projection}".replace(".", "/")
                weight = torch.addmm(weight, self.up[key], self.down[key], alpha=self.scale)
            weights.append(weight.to(self.dtype))
        return weights

    def _layer(
        self,
        hidden: torch.Tensor,
        layer: Any,
        weights: list[torch.Tensor],
        rotary: tuple[torch.Tensor, torch.Tensor],
        context: int,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        q, k, v, out, gate, up, down = weights
        rows, length, _ = hidden.shape
        size = self.config.head_dim
        joint = F.linear(self._norm(hidden, layer.input_layernorm), torch.cat([q, k, v]))
        heads = joint.view(rows, length, -1, size).transpose(1, 2)
        queries, keys = len(q) // size, len(k) // size
        turned = _rotate(heads[:, : queries + keys], rotary)
        attended = _attention(turned[:, :queries], turned[:, queries:], heads[:, queries + keys :], context, mask)
        hidden = hidden + F.linear(attended.transpose(1, 2).reshape(rows, length, -1), out)
        first, second = F.linear(self._norm(hidden, layer.post_attention_layernorm), torch.cat([gate, up])).chunk(2, -1)
        return hidden + F.linear(F.silu(first) * second, down)

    def _norm(self, hidden: torch.Tensor, norm: Any) -> torch.Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], norm.weight.to(self.dtype), norm.variance_epsilon)

    def _rotary(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = self.base.model.rotary_emb.inv_freq.float()
        angles = positions[:, None, :, None].float() * frequencies
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


def _rotate(heads: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cos, sin = rotary
    first, second = heads.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, context: int, mask: torch.Tensor | None
) -> torch.Tensor:
    """Causal attention of the context, then masked attention of the text to everything."""
    # Kernels that take a mask know no grouped heads.
    groups = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    seen = F.scaled_dot_product_attention(
        queries[:, :, :context], keys[:, :, :context], values[:, :, :context], is_causal=True
    )
    if mask is None:
        return seen
    text = F.scaled_dot_product_attention(queries[:, :, context:], keys, values, attn_mask=mask)
    return torch.cat([seen, text], 2)
