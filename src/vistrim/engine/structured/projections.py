"""Projections and feed-forward networks that do less for visual rows.

They are shadowed on the instance while a model is trimmed. The other rows go through the module's own forward pass, so
that whatever wraps it keeps working; visual rows are multiplied with slices of its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from vistrim.core.costs import DecoderShape
from vistrim.core.structure import LayerStructure, runs
from vistrim.engine.hooks import Hooks
from vistrim.engine.passes.layer_cut import RowSplit

FindRows = Callable[[], RowSplit | None]
"""The rows of the running pass; None: all rows are alike."""


def narrow(layer: Any, structure: LayerStructure, shape: DecoderShape, hooks: Hooks, find: FindRows) -> None:
    """Shadow what visual rows pass through less of.

    Parameters
    ----------
    layer : nn.Module
        A decoder layer.
    structure : LayerStructure
        What it leaves out.
    shape : DecoderShape
        Sizes of the decoder.
    hooks : Hooks
        Takes the shadows off again.
    find : callable
        Called at every forward pass, in its thread.
    """
    if structure.cuts_heads:
        assert structure.heads is not None
        with_value = structure.seeing_kv_heads(shape.heads, shape.kv_heads)
        with_key = with_value if structure.renormalise else [True] * shape.kv_heads
        parts = {"q_proj": structure.heads, "k_proj": with_key, "v_proj": with_value}
        for name, heads in parts.items():
            _shadow(getattr(layer.self_attn, name), _some_outputs(runs(heads, shape.head_dim)), hooks, find)
        _shadow(layer.self_attn.o_proj, _some_inputs(runs(structure.heads, shape.head_dim)), hooks, find)
    if structure.ffn < 1:
        _shadow(layer.mlp, _first_neurons(structure.neurons(shape.intermediate)), hooks, find)


Narrowed = Callable[[Any, Tensor], Tensor]
"""Sends rows ``[rows, width]`` through a part of a module."""


def _shadow(module: nn.Module, narrowed: Narrowed, hooks: Hooks, find: FindRows) -> None:
    own = module.forward

    def forward(x: Tensor) -> Tensor:
        rows = find()
        if rows is None:
            return own(x)
        flat = x.flatten(0, -2)
        visual, others = rows.visual.to(x.device), rows.others.to(x.device)
        some = narrowed(module, flat.index_select(0, visual))
        rest = own(flat.index_select(0, others))
        output = rest.new_empty(len(flat), rest.shape[-1])
        output.index_copy_(0, others, rest).index_copy_(0, visual, some.to(rest.dtype))
        return output.unflatten(0, x.shape[:-1])

    hooks.shadow(module, "forward", forward)


def _some_outputs(features: tuple[slice, ...]) -> Narrowed:
    """Only these outputs of a linear layer; the others are zero."""

    def narrowed(module: nn.Linear, x: Tensor) -> Tensor:
        output = x.new_zeros(len(x), module.out_features)
        for some in features:
            bias = None if module.bias is None else module.bias[some]
            output[:, some] = linear(x, module.weight[some], bias).to(x.dtype)
        return output

    return narrowed


def _some_inputs(features: tuple[slice, ...]) -> Narrowed:
    """Only these inputs of a linear layer; the others count as zero."""

    def narrowed(module: nn.Linear, x: Tensor) -> Tensor:
        if not features:
            return x.new_zeros(len(x), module.out_features) if module.bias is None else module.bias.expand(len(x), -1)
        # One product over copied columns: several products, added up, take longer and round more often.
        weight = torch.cat([module.weight[:, some] for some in features], 1)
        return linear(torch.cat([x[:, some] for some in features], 1), weight, module.bias)

    return narrowed


def _first_neurons(n: int) -> Narrowed:
    """The first neurons of a gated feed-forward network."""

    def through(module: nn.Linear, x: Tensor) -> Tensor:
        return linear(x, module.weight[:n], None if module.bias is None else module.bias[:n])

    def narrowed(module: Any, x: Tensor) -> Tensor:
        inner = module.act_fn(through(module.gate_proj, x)) * through(module.up_proj, x)
        return linear(inner, module.down_proj.weight[:, :n], module.down_proj.bias)

    return narrowed
