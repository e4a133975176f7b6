"""Sizes of the decoder layers for cost figures, from the config or, if it is not sufficient, from the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from vistrim.core.costs import DecoderShape

CHOSEN = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "experts_per_token", "moe_top_k")
"""Names in configs for the number of active experts per token."""


def decoder_shape(decoder: Any) -> DecoderShape:
    """Find the sizes of all layers of a decoder."""
    text = decoder.config
    configs = getattr(text, "per_layer_config", None) or [text] * len(decoder.layers)
    layers = [_layer(config, layer) for config, layer in zip(configs, decoder.layers, strict=True)]
    return replace(layers[0], layers=len(layers), each=tuple(layers) if len(set(layers)) > 1 else ())


def _layer(text: Any, layer: Any) -> DecoderShape:
    heads = text.num_attention_heads
    latent = getattr(text, "kv_lora_rank", None)
    own_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    intermediate = getattr(text, "intermediate_size", None)
    shape = DecoderShape(
        layers=1,
        hidden=text.hidden_size,
        intermediate=intermediate if isinstance(intermediate, int) else 0,
        heads=heads,
        # Older attention modules ignore the setting in the config.
        kv_heads=heads // getattr(layer.self_attn, "num_key_value_groups", 1),
        head_dim=_latent_head_dim(text) if latent else own_width,
        cached=latent + text.qk_rope_head_dim if latent else None,
    )
    attention = _weights(layer.self_attn)
    others = sum(_weights(child) for name, child in layer.named_children() if name != "self_attn")
    others -= _idle(layer, text)
    return replace(
        shape,
        projections=None if attention == shape.standard_projections else attention,
        feed_forward=None if others == shape.standard_feed_forward else others,
    )


def _latent_head_dim(text: Any) -> int:
    """Return the mean width of logits and values per head in multi-head latent attention."""
    return int(text.qk_nope_head_dim + text.qk_rope_head_dim + text.v_head_dim) // 2


def _weights(module: nn.Module) -> int:
    """Count the weights that rows are multiplied with."""
    total = 0
    for part in module.modules():
        # Quantized weights may be packed into fewer elements.
        if hasattr(part, "in_features") and hasattr(part, "out_features"):
            linear: Any = part
            total += linear.in_features * linear.out_features
        else:
            own = part.parameters(recurse=False)
            total += sum(parameter.numel() for parameter in own if parameter.dim() > 1)
    return total


def _idle(layer: nn.Module, text: Any) -> int:
    """Count the weights of the experts that are inactive for a token."""
    idle = 0
    for name, module in layer.named_modules():
        if not name.endswith("experts") or "shared" in name:
            continue
        parts = list(module.children()) if isinstance(module, nn.ModuleList) else []
        stacked = [p.shape[0] for p in module.parameters() if p.dim() == 3]
        experts = len(parts) or (stacked[0] if stacked else 1)
        if "vision_moe" in name:
            # ERNIE has separate experts for images. Text tokens use none of them.
            idle += _weights(module)
        else:
            idle += _weights(module) * (experts - _chosen(text, experts)) // experts
    return idle


def _chosen(text: Any, experts: int) -> int:
    found = next((getattr(text, name) for name in CHOSEN if getattr(text, name, None)), experts)
    return min(found if isinstance(found, int) else max(found), experts)
