"""A layer with structural cuts for visual tokens: the heads that see them, and the entries missing in its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vistrim.core.costs import DecoderShape
from vistrim.core.structure import HeadBlock, LayerStructure, head_blocks

CutT = TypeVar("CutT", bound="StructuredLayer")


@dataclass(frozen=True)
class StructuredLayer:
    """A layer with structural cuts.

    Attributes
    ----------
    structure : LayerStructure
        The cuts.
    active, idle : tuple of HeadBlock
        Heads that see visual tokens, and heads that do not.
    """

    structure: LayerStructure
    active: tuple[HeadBlock, ...]
    idle: tuple[HeadBlock, ...]

    @classmethod
    def of(cls: type[CutT], structure: LayerStructure, shape: DecoderShape) -> CutT:
        """Split the heads into blocks."""
        return cls(structure, *head_blocks(structure.heads or (True,) * shape.heads, shape.kv_heads))

    @property
    def brings_kernel(self) -> bool:
        """Whether the layer may need one of our attention kernels."""
        return bool(self.idle) or self.structure.window is not None

    @property
    def lacking(self) -> LayerStructure | None:
        """Heads in which stored visual tokens have no keys or values; None: all are stored."""
        cut = self.structure
        return LayerStructure(heads=cut.heads, renormalise=cut.renormalise) if cut.cuts_heads else None

    def looking(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries and keys ``[batch, heads, ..., head_dim]`` that can rank visual tokens.

        These are the heads that see visual tokens. If there are none, it is one head with uniform attention.
        """
        if not self.idle:
            return query, key
        if not self.active:
            return torch.zeros_like(query[:, :1]), key[:, :1]
        per_key = query.shape[1] // key.shape[1]
        heads = [head for block in self.active for head in range(block.query.start, block.query.stop)]
        index = torch.tensor(heads, device=query.device)
        return query.index_select(1, index), key.index_select(1, (index // per_key).to(key.device))
