"""SmolLM2 with an adapter, as pure functions of its weights.

The forward pass of training: what the stock model computes with the adapter merged into its weights, without the
parts that only generation needs. The context (system message and image) is attended causally, without a mask; each
packed question then attends to the context and to itself.
"""

from __future__ import annotations

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


#: Per layer: queries, keys and values; their output; gate and up; down.
Weights = list[tuple[torch.Tensor, ...]]


class Decoder(nn.Module):
    """A frozen Llama with low-rank additions to all of its projections.

    Parameters
    ----------
    base : transformers.LlamaForCausalLM
        In fp32, on the device where it stays.
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
        self.layers = len(base.model.layers)
        # All layers' weights of a projection in one tensor: few large operations instead of hundreds of small ones.
        self.stacks = {
            projection: torch.stack([layer.get_submodule(projection).weight for layer in base.model.layers])
            for projection in PROJECTIONS
        }
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for projection, stack in self.stacks.items():
            _, outputs, inputs = stack.shape
            down = torch.randn(self.layers, rank, inputs) * inputs**-0.5
            self.down[_key(projection)] = nn.Parameter(down.to(stack.device))
            self.up[_key(projection)] = nn.Parameter(torch.zeros(self.layers, outputs, rank, device=stack.device))
        with torch.no_grad():
            #: The base as it is.
            self.plain = self._joined(self.stacks)

    def weights(self) -> Weights:
        """The base with the adapter merged, with gradients to the adapter."""
        merged = {
            projection: torch.baddbmm(stack, self.up[_key(projection)], self.down[_key(projection)], alpha=self.scale)
            for projection, stack in self.stacks.items()
        }
        return self._joined(merged)

    def _joined(self, stacks: dict[str, torch.Tensor]) -> Weights:
        q, k, v, out, gate, up, down = (stacks[projection].to(self.dtype) for projection in PROJECTIONS)
        joined = (torch.cat([q, k, v], 1), out, torch.cat([gate, up], 1), down)
        return list(zip(*(weight.unbind() for weight in joined), strict=True))

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """The adapter by the names of its files, as views."""
        state = {}
        for layer in range(self.layers):
            for projection in PROJECTIONS:
                name = f"model.layers.{layer}.{projection}"
                state[f"{name}.lora_A"] = self.down[_key(projection)][layer]
                state[f"{name}.lora_B"] = self.up[_key(projection)][layer]
        return state

    @torch.no_grad()
    def load_adapter(self, state: dict[str, torch.Tensor]) -> None:
        """Take over an adapter read from its files; the counterpart of `adapter_state`."""
        for name, part in self.adapter_state().items():
            part.copy_(state[name])

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.embedding(tokens, self.base.model.embed_tokens.weight).to(self.dtype)

    def forward(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        context: int,
        mask: torch.Tensor | None,
        weights: Weights,
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
        weights : list of tuples of torch.Tensor
            `weights()` or `plain`.
        """
        rotary = self._rotary(positions)
        hidden = embeddings.to(self.dtype)
        for layer, own in zip(self.base.model.layers, weights, strict=True):
            hidden = self._layer(hidden, layer, own, rotary, context, mask)
        return self._norm(hidden, self.base.model.norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits, fp32."""
        return F.linear(hidden, self.base.model.embed_tokens.weight.to(self.dtype)).float()

    def _layer(
        self,
        hidden: torch.Tensor,
        layer: Any,
        weights: tuple[torch.Tensor, ...],
        rotary: tuple[torch.Tensor, torch.Tensor],
        context: int,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        qkv, out, gate_up, down = weights
        rows, length, _ = hidden.shape
        size = self.config.head_dim
        joint = F.linear(self._norm(hidden, layer.input_layernorm), qkv)
        heads = joint.view(rows, length, -1, size).transpose(1, 2)
        queries, keys = self.config.num_attention_heads, self.config.num_key_value_heads
        turned = _rotate(heads[:, : queries + keys], rotary)
        attended = _attention(turned[:, :queries], turned[:, queries:], heads[:, queries + keys :], context, mask)
        hidden = hidden + F.linear(attended.transpose(1, 2).reshape(rows, length, -1), out)
        first, second = F.linear(self._norm(hidden, layer.post_attention_layernorm), gate_up).chunk(2, -1)
        return hidden + F.linear(F.silu(first) * second, down)

    def _norm(self, hidden: torch.Tensor, norm: Any) -> torch.Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], norm.weight.to(self.dtype), norm.variance_epsilon)

    def _rotary(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = self.base.model.rotary_emb.inv_freq.float()
        angles = positions[:, None, :, None].float() * frequencies
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


def _key(projection: str) -> str:
    """A projection's name as a key of a `ParameterDict`, which takes no dots."""
    return projection.replace(".", "/")


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
