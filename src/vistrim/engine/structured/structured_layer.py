"""A layer that leaves things out for visual tokens: which of its heads see them, and what its cache lacks."""

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

    @classmethod
    def of(cls: type[CutT], structure: LayerStructure, shape: DecoderShape) -> CutT:
        """Cut the heads into blocks."""
        return cls(structure, *head_blocks(structure.heads or (True,) * shape.heads, shape.kv_heads))

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
