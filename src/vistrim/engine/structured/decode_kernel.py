"""Decoding in a layer with heads that do not see visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistrim.core.attention import attend
from vistrim.core.selection import gather_rows
from vistrim.core.structure import HeadBlock
from vistrim.engine.passes.layer_cut import LayerPass
from vistrim.engine.structured.structured_layer import StructuredLayer
from vistrim.engine.tokens.masks import visible_between
from vistrim.engine.tokens.token_map import TokenMap


@dataclass(frozen=True)
class DecodeKernel:
    """Attention of one generated token per sample; see `vistrim.engine.attention.interception.Kernel`.

    Attributes
    ----------
    layer : StructuredLayer
        The layer.
    held : TokenMap
        The mapped columns. They are followed by text.
    """

    layer: StructuredLayer
    held: TokenMap

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float
    ) -> Tensor:
        output = torch.empty_like(query)
        for block in self.layer.active:
            output[:, block.query] = _attend(block, query, key, value, mask, scaling, dropout)
        if self.layer.structure.renormalize:
            columns, seen = self._text(key.shape[2], mask)
            key, value, mask = gather_rows(key, columns, 0, 2), gather_rows(value, columns, 0, 2), seen
        else:
            visual = self.held.visual.to(value.device)
            visual = torch.nn.functional.pad(visual, (0, key.shape[2] - self.held.width))
            value = value.masked_fill(visual[:, None, :, None], 0)
        for block in self.layer.idle:
            output[:, block.query] = _attend(block, query, key, value, mask, scaling, dropout)
        return output.transpose(1, 2)

    def _text(self, columns: int, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the columns of the text ``[batch, n]``, and their visibility ``[batch, 1, 1, n]`` (None: all)."""
        mapped, known = self.held.text_rows
        behind = torch.arange(self.held.width, columns, device=mapped.device).expand(mapped.shape[0], -1)
        index = torch.cat([mapped, behind], 1)
        if mask is None and len(set(self.held.n_text)) == 1:
            return index, None
        known = torch.nn.functional.pad(known, (0, behind.shape[1]), value=True)
        seen = visible_between(mask, torch.zeros_like(index[:, :1]), index, 1, columns)
        return index, (seen & known.to(seen.device)[:, None])[:, None]


def plan_decode(layer: StructuredLayer, cached: Any) -> LayerPass | None:
    """Plan a layer before it runs. Returns None if there is nothing to cut."""
    held: TokenMap | None = cached.tokens
    if held is None or not layer.idle or not any(held.n_visual):
        return None
    cached.straighten()
    return LayerPass(None, DecodeKernel(layer, held))


def _attend(block: HeadBlock, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return attend(query[:, block.query], key[:, block.key], value[:, block.key], *rest)
