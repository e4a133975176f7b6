"""Prefill attention of a layer with structural cuts: the rows and columns that it still computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vistrim.core.attention import attend, attend_by_tiles
from vistrim.core.selection import gather_rows
from vistrim.core.structure import HeadBlock
from vistrim.engine.passes.layer_inputs import LayerInputs
from vistrim.engine.structured.structured_layer import StructuredLayer
from vistrim.engine.tokens.masks import visible_between, visible_to_rows
from vistrim.engine.tokens.token_map import TokenMap


@dataclass(frozen=True)
class Tiles:
    """Visual tokens in tiles, and the tokens that they attend to.

    Attributes
    ----------
    queries : Tensor
        ``[batch, tiles, n]`` long: rows of the tile, -1 where there is none.
    keys : Tensor
        ``[batch, tiles, m]`` long: rows of the block around the tile, -1 where there is none.
    near : Tensor
        ``[batch, tiles, n, m]`` bool, True where a key lies in the window of the query.
    text, known : Tensor
        ``[batch, k]`` long and bool: columns of the text before the last visual token, and False for padding.
    n_text : tuple of int
        Number of these text tokens per sample.
    images : tuple of int
        Number of images per sample.
    pairs : tuple of int
        Number of queries computed per image, and number of image keys per query.
    """

    queries: Tensor
    keys: Tensor
    near: Tensor
    text: Tensor
    known: Tensor
    n_text: tuple[int, ...]
    images: tuple[int, ...]
    pairs: tuple[int, int]


@dataclass(frozen=True)
class PrefillKernel:
    """Attention of one layer in one prefill; see `vistrim.engine.attention.interception.Kernel`.

    Attributes
    ----------
    layer : StructuredLayer
        The layer.
    forward : LayerInputs
        The pass.
    tokens : TokenMap
        The rows.
    columns : TokenMap
        The tokens in the cache of the layer, and the rows.
    tiles : Tiles or None
        Tiles for window attention. None: no window.
    """

    layer: StructuredLayer
    forward: LayerInputs
    tokens: TokenMap
    columns: TokenMap
    tiles: Tiles | None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float
    ) -> Tensor:
        batch, heads, rows, size = query.shape
        # An extra last row receives the output of padding.
        output = query.new_zeros(batch, rows + 1, heads, size)
        if self.tiles is None:
            for block in self.layer.active:
                chosen = _heads(block, query, key, value)
                whole = attend(*chosen, mask, scaling, dropout, causal=mask is None and rows > 1)
                output[:, :rows, block.query] = whole.transpose(1, 2)
        else:
            self._text(output, self.layer.active, query, key, value, self._seen_by_text(mask), scaling, dropout)
            self._near(output, query, key, value, mask, scaling, dropout)
        if self.layer.idle:
            if self.layer.structure.renormalise:
                columns, _ = self.columns.text_rows
                key, value = gather_rows(key, columns, 0, 2), gather_rows(value, columns, 0, 2)
                seen = self._text_seen_by_text(mask)
            else:
                value = value.masked_fill(self.columns.visual.to(value.device)[:, None, :, None], 0)
                seen = self._seen_by_text(mask)
            self._text(output, self.layer.idle, query, key, value, seen, scaling, dropout)
        return output[:, :rows]

    def _text(
        self,
        output: Tensor,
        blocks: tuple[HeadBlock, ...],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        seen: Tensor,
        scaling: float,
        dropout: float,
    ) -> None:
        """Compute the attention of the text in some heads."""
        text, is_text = self.tokens.text_rows
        place = torch.where(is_text, text, query.shape[2]).to(query.device)
        query = gather_rows(query, text, 0, 2)
        for block in blocks:
            chosen = _heads(block, query, key, value)
            _put(output, place, block, attend(*chosen, seen.to(query.device), scaling, dropout))

    def _near(
        self,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        dropout: float,
    ) -> None:
        """Compute the attention of visual tokens to their neighbors and to the text before them."""
        tiles = self.tiles
        assert tiles is not None
        rows = query.shape[2]
        first = key.shape[2] - rows
        text = tiles.text[:, None].expand(-1, tiles.keys.shape[1], -1)
        columns = torch.cat([text, tiles.keys.clamp(min=0) + first], 2)
        seen = self._seen_by_tiles(mask).to(query.device)
        place = torch.where(tiles.queries >= 0, tiles.queries, rows).to(query.device)
        rows_of_tiles = tiles.queries.clamp(min=0)
        for block in self.layer.active:
            chosen = _heads(block, query, key, value)
            for some, near in attend_by_tiles(*chosen, rows_of_tiles, columns, seen, scaling, dropout):
                _put(output, place[:, some].flatten(1), block, near)

    def _seen_by_text(self, mask: Tensor | None) -> Tensor:
        """``[batch, 1, text rows, columns]`` bool."""

        def make() -> Tensor:
            rows, is_text = self.tokens.text_rows
            seen = visible_to_rows(mask, rows, self.tokens.width, self.columns.width)
            return (seen | ~is_text.to(seen.device)[..., None])[:, None]

        return self.forward.remember(("seen by text", id(mask), id(self.columns)), (mask, self.columns), make)

    def _text_seen_by_text(self, mask: Tensor | None) -> Tensor:
        """``[batch, 1, text rows, text columns]`` bool."""

        def make() -> Tensor:
            rows, is_text = self.tokens.text_rows
            columns, known = self.columns.text_rows
            seen = visible_between(mask, rows, columns, self.tokens.width, self.columns.width)
            return (seen & known.to(seen.device)[:, None] | ~is_text.to(seen.device)[..., None])[:, None]

        return self.forward.remember(("text seen by text", id(mask), id(self.columns)), (mask, self.columns), make)

    def _seen_by_tiles(self, mask: Tensor | None) -> Tensor:
        """``[batch, tiles, n, text and image keys]`` bool."""
        tiles = self.tiles
        assert tiles is not None

        def make() -> Tensor:
            rows = tiles.queries.flatten(1)
            seen = visible_between(mask, rows.clamp(min=0), tiles.text, self.tokens.width, self.columns.width)
            seen = (seen & tiles.known.to(seen.device)[:, None]).unflatten(1, tiles.queries.shape[1:])
            seen = torch.cat([seen, tiles.near.to(seen.device)], 3)
            return seen | (tiles.queries < 0).to(seen.device)[..., None]

        return self.forward.remember(("seen by tiles", id(mask), id(tiles)), (mask, tiles), make)


def _heads(block: HeadBlock, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return query[:, block.query], key[:, block.key], value[:, block.key]


def _put(output: Tensor, place: Tensor, block: HeadBlock, found: Tensor) -> None:
    """Write ``[batch, heads, n, head_dim]`` to the rows ``place`` ``[batch, n]``."""
    samples = torch.arange(place.shape[0], device=place.device)[:, None]
    # Under autocast the output of the kernel has a different dtype than the queries.
    output[samples, place, block.query] = found.transpose(1, 2).to(output.dtype)
