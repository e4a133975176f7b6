"""Projections and feed-forward networks with structural cuts for visual rows.

While a model is trimmed, their ``forward`` is replaced on the instance. Visual rows are multiplied with slices of the
weights. The other rows go through the original forward pass, so that wrappers keep working.
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
"""Returns the visual and other rows of the current pass; None: no cuts apply."""


def narrow(layer: Any, structure: LayerStructure, shape: DecoderShape, hooks: Hooks, find: FindRows) -> None:
    """Replace the ``forward`` of the modules that are cut for visual rows.

    Parameters
    ----------
    layer : nn.Module
        A decoder layer.
    structure : LayerStructure
        Cuts of the layer.
    shape : DecoderShape
        Sizes of the decoder.
    hooks : Hooks
        Restores the modules.
    find : callable
        Called at every forward pass, in its thread. Returns the rows.
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
"""Applies a part of a module to rows ``[rows, width]``."""


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
    """Compute only these outputs of a linear layer. The others are zero."""

    def narrowed(module: nn.Linear, x: Tensor) -> Tensor:
        output = x.new_zeros(len(x), module.out_features)
        for some in features:
            bias = None if module.bias is None else module.bias[some]
            output[:, some] = linear(x, module.weight[some], bias).to(x.dtype)
        return output

    return narrowed


def _some_inputs(features: tuple[slice, ...]) -> Narrowed:
    """Use only these inputs of a linear layer. The others count as zero."""

    def narrowed(module: nn.Linear, x: Tensor) -> Tensor:
        if not features:
            return x.new_zeros(len(x), module.out_features) if module.bias is None else module.bias.expand(len(x), -1)
        # One product over copied columns is faster than a sum of several products, and rounds less often.
        weight = torch.cat([module.weight[:, some] for some in features], 1)
        return linear(torch.cat([x[:, some] for some in features], 1), weight, module.bias)

    return narrowed


def _first_neurons(n: int) -> Narrowed:
    """Use only the first neurons of a gated feed-forward network."""

    def through(module: nn.Linear, x: Tensor) -> Tensor:
        return linear(x, module.weight[:n], None if module.bias is None else module.bias[:n])

    def narrowed(module: Any, x: Tensor) -> Tensor:
        inner = module.act_fn(through(module.gate_proj, x)) * through(module.up_proj, x)
        return linear(inner, module.down_proj.weight[:, :n], module.down_proj.bias)

    return narrowed
