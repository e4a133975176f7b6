"""Cuts inside the layers of a model: the checks whether a layer can be cut, and its plan for a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from vistrim.architectures import ModelSpec
from vistrim.core.costs import DecoderShape
from vistrim.core.structure import LayerStructure
from vistrim.engine.hooks import Hooks
from vistrim.engine.passes.layer_cut import LayerPass
from vistrim.engine.passes.layer_inputs import LayerInputs
from vistrim.engine.structured.decode_kernel import plan_decode
from vistrim.engine.structured.plan import plan_prefill
from vistrim.engine.structured.projections import FindRows, narrow
from vistrim.engine.structured.structured_layer import StructuredLayer
from vistrim.errors import UnsupportedModelError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
HEAD_NORMS = ("q_norm", "k_norm")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class CutLayer(StructuredLayer):
    """A layer with structural cuts, and its plans for forward passes."""

    def plan_prefill(self, number: int, forward: LayerInputs) -> LayerPass | None:
        """Plan the layer before it runs in a prefill; see `vistrim.engine.structured.plan.plan_prefill`."""
        return plan_prefill(self, number, forward)

    def plan_decode(self, cached: Any) -> LayerPass | None:
        """Plan the layer before it runs with this cache layer. Returns None if there is nothing to cut."""
        return plan_decode(self, cached)

    def narrow(self, layer: nn.Module, shape: DecoderShape, hooks: Hooks, find: FindRows) -> None:
        """Install the cut projections and networks; see `vistrim.engine.structured.projections.narrow`."""
        narrow(layer, self.structure, shape, hooks, find)


def find_cuts(structures: Sequence[LayerStructure], name: str, spec: ModelSpec) -> tuple[CutLayer | None, ...]:
    """Check that the layers of a model support the cuts of the method ``name``.

    Raises
    ------
    UnsupportedModelError
        If a layer does not have the known structure.
    """
    for layer, structure in zip(spec.layers, structures, strict=True):
        # A model built from a config alone has no weights. It is only checked whether it could be cut.
        described = spec.device.type == "meta"
        if structure.cuts_heads:
            cannot = f"{name} cannot cut attention heads"
            _check_parts(layer, "self_attn", PROJECTIONS, cannot, "heads=none", described)
        if structure.ffn < 1:
            parts = (*FEED_FORWARD, "act_fn")
            _check_parts(layer, "mlp", parts, f"{name} cannot cut the network", "ffn=1.0", described)
    for attention in spec.attentions:
        _check_attention(attention, name)
    return tuple(None if structure.is_full else CutLayer.of(structure, spec.decoder_shape) for structure in structures)


def _check_attention(attention: Any, name: str) -> None:
    """Refuse attention that does more than project, normalize each head, rotate and attend."""
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
        # Quantized projections and those with adapters have no plain weights that could be sliced.
        if found is None or (part != "act_fn" and not _is_plain(found, described)):
            raise UnsupportedModelError(
                f"{cannot} of this model, whose layers have no plain {part} in {name}: disable that cut ({way_out})"
            )


def _is_plain(projection: nn.Module, described: bool) -> bool:
    return type(projection) is nn.Linear and (described or not projection.weight.is_meta)
