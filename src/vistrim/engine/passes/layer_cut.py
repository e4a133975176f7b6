"""Layers that leave something out for visual tokens, as far as a forward pass has to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from vistrim.core.costs import DecoderShape
from vistrim.core.structure import LayerStructure
from vistrim.engine.attention.interception import Kernel
from vistrim.engine.hooks import Hooks


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


class LayerCut(Protocol):
    """A layer that leaves something out for visual tokens; see `vistrim.engine.structured.cuts`."""

    @property
    def brings_kernel(self) -> bool:
        """Whether the layer may need an attention kernel of ours."""

    @property
    def lacking(self) -> LayerStructure | None:
        """What the visual tokens that this layer stores lack."""

    def looking(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys ``[batch, heads, ..., head_dim]`` by whose attention visual tokens can be ranked."""

    def narrow(self, layer: nn.Module, shape: DecoderShape, hooks: Hooks, find: Callable[[], RowSplit | None]) -> None:
        """Shadow what visual rows pass through less of; ``find`` gives the rows of the running pass."""

    def plan_prefill(self, number: int, forward: Any) -> LayerPass | None:
        """Plan the layer, which is about to run in a prefill (`LayerInputs`); None: there is nothing to leave out."""

    def plan_decode(self, cached: Any) -> LayerPass | None:
        """Plan the layer, which is about to run with this cache layer; None: there is nothing to leave out."""


LayerCuts = tuple[LayerCut | None, ...]
"""For each decoder layer; None where nothing is left out."""
