"""Layers that leave things out for visual tokens: what is known of them before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from vistrim.architectures import ModelSpec
from vistrim.core.costs import DecoderShape
from vistrim.core.structure import HeadBlock, LayerStructure, head_blocks
from vistrim.engine.attention.interception import Kernel
from vistrim.engine.choices import check_structure
from vistrim.errors import UnsupportedGenerationError, UnsupportedModelError
from vistrim.methods.base.method import Method

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
HEAD_NORMS = ("q_norm", "k_norm")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class StructuredLayer:
    """A layer that leaves something out.

    Attributes
    ----------
    structure : LayerStructure
        What.
    active, idle : tuple of HeadBlock
        Heads that see visual tokens, and those that do not.
    """

    structure: LayerStructure
    active: tuple[HeadBlock, ...]
    idle: tuple[HeadBlock, ...]

    @staticmethod
    def of(structure: LayerStructure, shape: DecoderShape) -> StructuredLayer:
        """Cut the heads into blocks."""
        return StructuredLayer(structure, *head_blocks(structure.heads or (True,) * shape.heads, shape.kv_heads))

    @property
    def brings_kernel(self) -> bool:
        """Whether the layer may need an attention kernel of ours."""
        return bool(self.idle) or self.structure.window is not None

    @property
    def lacking(self) -> LayerStructure | None:
        """What the visual tokens that this layer stores lack."""
        cut = self.structure
        return LayerStructure(heads=cut.heads, renormalise=cut.renormalise) if cut.cuts_heads else None

    def looking(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys ``[batch, heads, ..., head_dim]`` by whose attention visual tokens can be ranked.

        Those of the heads that see visual tokens. Where none does, one that looks at all tokens alike.
        """
        if not self.idle:
            return query, key
        if not self.active:
            return torch.zeros_like(query[:, :1]), key[:, :1]
        per_key = query.shape[1] // key.shape[1]
        heads = [head for block in self.active for head in range(block.query.start, block.query.stop)]
        index = torch.tensor(heads, device=query.device)
        return query.index_select(1, index), key.index_select(1, (index // per_key).to(key.device))


@dataclass(frozen=True)
class RowSplit:
    """Rows of a pass as ``[batch * rows]``, the samples one behind another.

    Attributes
    ----------
    visual, others : Tensor
        ``[n]`` long.
    """

    visual: Tensor
    others: Tensor


@dataclass(frozen=True)
class LayerPass:
    """What one layer does otherwise in one forward pass.

    Attributes
    ----------
    rows : RowSplit or None
        The rows of which visual ones pass through less; None: all rows are alike.
    kernel : Kernel or None
        What does the attention; None: the layer's own kernel.
    """

    rows: RowSplit | None
    kernel: Kernel | None


Structures = tuple[StructuredLayer | None, ...]
"""For each decoder layer; None where nothing is left out."""


def find_structures(method: Method, spec: ModelSpec) -> Structures:
    """Ask a fitted method what the layers leave out, and check that this can be left out of these layers.

    Raises
    ------
    UnsupportedModelError
        If a layer is not made of the parts that are known.
    """
    found = method.structure(spec.facts)
    check_structure(found, method, spec)
    if found is None:
        return (None,) * len(spec.layers)
    for layer, structure in zip(spec.layers, found, strict=True):
        # A model made of its configuration alone has no weights at all, and it is only asked whether it could be cut.
        described = spec.device.type == "meta"
        if structure.cuts_heads:
            cannot = f"{method.name} cannot cut attention heads"
            _check_parts(layer, "self_attn", PROJECTIONS, cannot, "heads=none", described)
        if structure.ffn < 1:
            parts = (*FEED_FORWARD, "act_fn")
            _check_parts(layer, "mlp", parts, f"{method.name} cannot cut the network", "ffn=1.0", described)
    for attention in spec.attentions:
        _check_attention(attention, method.name)
    return tuple(
        None if structure.is_full else StructuredLayer.of(structure, spec.decoder_shape) for structure in found
    )


def _check_attention(attention: Any, name: str) -> None:
    """Refuse attention that does more than project, normalise head by head, rotate and attend."""
    more = {child for child, _ in attention.named_children()} - {*PROJECTIONS, *HEAD_NORMS}
    more |= {part for part in ("sinks", "attn_logit_softcapping") if getattr(attention, part, None) is not None}
    for norm in HEAD_NORMS:
        sizes = [p.numel() for p in getattr(attention, norm, nn.Identity()).parameters()]
        if sizes and max(sizes) > attention.head_dim:
            more.add(norm)
    if more:
        raise UnsupportedModelError(
            f"{name} cannot cut inside the attention of this model, which has {', '.join(sorted(more))}: use fastv"
        )


def _check_parts(layer: Any, name: str, parts: tuple[str, ...], cannot: str, way_out: str, described: bool) -> None:
    module = getattr(layer, name, None)
    for part in parts:
        found = getattr(module, part, None)
        # Quantised and adapted projections have no plain weights of which a part could be used.
        if found is None or (part != "act_fn" and not _is_plain(found, described)):
            raise UnsupportedModelError(
                f"{cannot} of this model, whose layers have no plain {part} in {name}: leave that cut out ({way_out})"
            )


def _is_plain(projection: nn.Module, described: bool) -> bool:
    return type(projection) is nn.Linear and (described or not projection.weight.is_meta)


def check_heads(cache: Cache, structures: Structures) -> None:
    """Refuse a cache whose visual tokens lack keys or values that the layers are going to read.

    Raises
    ------
    UnsupportedGenerationError
        If it was filled with other heads cut.
    """
    for cached, own in zip(cache.layers, structures, strict=True):
        if cached.lacking is not None and cached.lacking != (own.lacking if own is not None else None):
            raise UnsupportedGenerationError(
                "this KV cache was filled with attention heads cut, and its visual tokens have no keys and values "
                "there: continue it with the same heads cut, or start a new cache"
            )


def check_call(call: dict[str, Any], config: Any, recomputes: bool) -> None:
    """Refuse what layers that leave something out cannot give.

    Raises
    ------
    UnsupportedGenerationError
        If attention maps are asked for, or layers are recomputed for the gradient.
    """
    asked = call.get("output_attentions")
    if config.output_attentions if asked is None else asked:
        raise UnsupportedGenerationError(
            "there are no attention maps where a method cuts inside the layers: leave out `output_attentions`"
        )
    if recomputes:
        raise UnsupportedGenerationError(
            "layers cannot be recomputed for the gradient where a method cuts inside them: "
            "call model.activation_checkpointing_disable()"
        )
