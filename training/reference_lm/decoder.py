"""SmolLM2 with an adapter, as pure functions of its weights.

The forward pass of training: what the stock model computes with the adapter merged into its weights, without the
parts that only generation needs. The context (system message and image) is attended causally, without a mask; each
packed question then attends to the context and to itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from training.reference_lm.packing import TextMask

PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


#: Projections that read the same input, computed as one: queries, keys and values; their output; gate and up; down.
GROUPS = (PROJECTIONS[:3], PROJECTIONS[3:4], PROJECTIONS[4:6], PROJECTIONS[6:])


@dataclass(frozen=True)
class Joint:
    """Projections of one group in one layer.

    Attributes
    ----------
    weight : torch.Tensor
        ``(outputs, inputs)``, the adapter merged, without gradient.
    downs, ups : tuple of torch.Tensor
        The adapter of each projection, ``(rank, inputs)`` and ``(outputs of the projection, rank)``; none in the base.
    scale : float
        The weight is that of the base plus ``scale * up @ down``.
    """

    weight: torch.Tensor
    downs: tuple[torch.Tensor, ...] = ()
    ups: tuple[torch.Tensor, ...] = ()
    scale: float = 1.0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.downs:
            return F.linear(inputs, self.weight)
        return _MergedLinear.apply(inputs, self.weight, self.scale, *self.downs, *self.ups)


#: Per layer, the four groups.
Weights = list[tuple[Joint, ...]]


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
        #: The base as it is.
        self.plain: Weights = [tuple(map(Joint, layer)) for layer in self._joined(self.stacks)]

    @torch.no_grad()
    def merged(self) -> list[tuple[torch.Tensor, ...]]:
        """Per layer, the weights of the four groups with the adapter merged, without gradients."""
        return self._joined(
            {
                name: torch.baddbmm(stack, self.up[_key(name)], self.down[_key(name)], alpha=self.scale)
                for name, stack in self.stacks.items()
            }
        )

    def weights(self, merged: list[tuple[torch.Tensor, ...]] | None = None) -> Weights:
        """The base with the adapter merged, with gradients to the adapter alone; for one backward pass.

        ``merged`` saves computing it again as long as the adapter has not changed.
        """
        merged = self.merged() if merged is None else merged
        downs = {name: self.down[_key(name)].to(self.dtype).unbind() for name in PROJECTIONS}
        ups = {name: self.up[_key(name)].to(self.dtype).unbind() for name in PROJECTIONS}
        return [
            tuple(
                Joint(
                    weight, tuple(downs[name][i] for name in group), tuple(ups[name][i] for name in group), self.scale
                )
                for weight, group in zip(layer, GROUPS, strict=True)
            )
            for i, layer in enumerate(merged)
        ]

    def _joined(self, stacks: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
        joined = (torch.cat([stacks[name] for name in group], 1).to(self.dtype) for group in GROUPS)
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
        text: TextMask | None,
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
        text : TextMask or None
            What the others see, from :func:`~training.reference_lm.packing.text_mask`.
        weights : list of tuples of torch.Tensor
            `weights()` or `plain`.
        """
        rotary = self._rotary(positions)
        hidden = embeddings.to(self.dtype)
        for layer, own in zip(self.base.model.layers, weights, strict=True):
            hidden = self._layer(hidden, layer, own, rotary, context, text)
        return self._norm(hidden, self.base.model.norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits, fp32."""
        return F.linear(hidden, self.base.model.embed_tokens.weight.to(self.dtype)).float()

    def _layer(
        self,
        hidden: torch.Tensor,
        layer: Any,
        weights: tuple[Joint, ...],
        rotary: tuple[torch.Tensor, torch.Tensor],
        context: int,
        text: TextMask | None,
    ) -> torch.Tensor:
        qkv, out, gate_up, down = weights
        rows, length, _ = hidden.shape
        size = self.config.head_dim
        joint = qkv(self._norm(hidden, layer.input_layernorm))
        heads = joint.view(rows, length, -1, size).transpose(1, 2)
        queries, keys = self.config.num_attention_heads, self.config.num_key_value_heads
        turned = _rotate(heads[:, : queries + keys], rotary)
        attended = _attention(turned[:, :queries], turned[:, queries:], heads[:, queries + keys :], context, text)
        hidden = hidden + out(attended.transpose(1, 2).reshape(rows, length, -1))
        return hidden + down(_gated(gate_up(self._norm(hidden, layer.post_attention_layernorm))))

    def _norm(self, hidden: torch.Tensor, norm: Any) -> torch.Tensor:
        return _normed(hidden, norm.weight.to(self.dtype), norm.variance_epsilon)

    def _rotary(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = self.base.model.rotary_emb.inv_freq.float()
        angles = positions[:, None, :, None].float() * frequencies
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


class _MergedLinear(torch.autograd.Function):
    """A product with merged weights whose gradient goes to the input and to the adapter.

    Differentiating through the merged weight would compute its whole gradient, a third of a step's work, only to
    multiply it down to the adapter's rank.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, scale: float, *adapter: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight, *adapter)
        ctx.scale = scale
        return F.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        inputs, weight, *adapter = ctx.saved_tensors
        downs, ups = adapter[: len(adapter) // 2], adapter[len(adapter) // 2 :]
        rows, given = inputs.flatten(0, -2), gradient.flatten(0, -2)
        parts = given.split([up.shape[0] for up in ups], -1)
        to_downs = [ctx.scale * (part @ up).T @ rows for part, up in zip(parts, ups, strict=True)]
        to_ups = [ctx.scale * part.T @ (rows @ down.T) for part, down in zip(parts, downs, strict=True)]
        return gradient @ weight, None, None, *to_downs, *to_ups


def _key(projection: str) -> str:
    """A projection's name as a key of a `ParameterDict`, which takes no dots."""
    return projection.replace(".", "/")


@torch.compile
def _normed(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return F.rms_norm(hidden, hidden.shape[-1:], weight, epsilon)


@torch.compile
def _gated(joint: torch.Tensor) -> torch.Tensor:
    first, second = joint.chunk(2, -1)
    return F.silu(first) * second


@torch.compile
def _rotate(heads: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cos, sin = rotary
    first, second = heads.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, context: int, text: TextMask | None
) -> torch.Tensor:
    """Causal attention of the context, then attention of the text, block by block."""
    before, after = slice(None, context), slice(context, None)
    causal = torch.ones(context, context, dtype=torch.bool, device=queries.device).tril()
    attended = [_masked(queries[:, :, before], keys[:, :, before], values[:, :, before], causal)]
    for tokens, seen, mask in text or ():
        some = [torch.cat([part[:, :, before], part[:, :, after][:, :, seen]], 2) for part in (keys, values)]
        attended.append(_masked(queries[:, :, after][:, :, tokens], *some, mask))
    return torch.cat(attended, 2)


def _masked(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention with grouped heads and a mask."""
    rows, heads, length, size = queries.shape
    groups = heads // keys.shape[1]
    if queries.device.type != "cpu":
        # Kernels that take a mask know no grouped heads.
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    # On CPUs, the backward pass of the kernel takes several times as long as plain products.
    bias = torch.zeros(mask.shape, dtype=queries.dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    grouped = (queries * size**-0.5).reshape(rows, -1, groups * length, size)
    scores = (grouped @ keys.transpose(2, 3)).view(rows, heads, length, -1).add_(bias)
    return (scores.softmax(-1).view(rows, -1, groups * length, keys.shape[2]) @ values).view(rows, heads, length, size)
