"""Interface between a forward pass and layers with structural cuts."""

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
    """Rows of a pass in ``[batch * rows]``, with the samples concatenated.

    Attributes
    ----------
    visual, others : Tensor
        ``[n]`` long: visual rows, and all other rows.
    """

    visual: Tensor
    others: Tensor


@dataclass(frozen=True)
class LayerPass:
    """Plan of a layer with structural cuts for one forward pass.

    Attributes
    ----------
    rows : RowSplit or None
        Visual rows, which some modules process only in part, and other rows. None: all rows are treated alike.
    kernel : Kernel or None
        Attention kernel. None: that of the layer.
    """

    rows: RowSplit | None
    kernel: Kernel | None


class LayerCut(Protocol):
    """A layer with structural cuts for visual tokens; see `vistrim.engine.structured.cuts`."""

    @property
    def brings_kernel(self) -> bool:
        """Whether the layer may need one of our attention kernels."""

    @property
    def lacking(self) -> LayerStructure | None:
        """Heads in which stored visual tokens have no keys or values. None: all are stored."""

    def looking(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries and keys ``[batch, heads, ..., head_dim]`` that can rank visual tokens."""

    def narrow(self, layer: nn.Module, shape: DecoderShape, hooks: Hooks, find: Callable[[], RowSplit | None]) -> None:
        """Replace the modules that are cut for visual rows; ``find`` returns the rows of the current pass."""

    def plan_prefill(self, number: int, forward: Any) -> LayerPass | None:
        """Plan the layer before it runs in a prefill (`LayerInputs`). None: there is nothing to cut."""

    def plan_decode(self, cached: Any) -> LayerPass | None:
        """Plan the layer before it runs with this cache layer. None: there is nothing to cut."""


LayerCuts = tuple[LayerCut | None, ...]
"""Structural cuts of each decoder layer. None: it has none."""
