"""Plan of a layer with structural cuts in a prefill: its rows, columns and computations."""

from __future__ import annotations

import torch

from vistrim.core.costs import LayerWork, structured_layer_flops
from vistrim.core.layout import Grid
from vistrim.core.selection import kept_rows
from vistrim.core.windows import lay_tiles, rows_of_cells, tile_grid
from vistrim.engine.inputs.images import PromptPictures
from vistrim.engine.passes.layer_cut import LayerPass, RowSplit
from vistrim.engine.passes.layer_inputs import LayerInputs
from vistrim.engine.structured.prefill_kernel import PrefillKernel, Tiles
from vistrim.engine.structured.structured_layer import StructuredLayer
from vistrim.engine.tokens.token_map import TokenMap, add
from vistrim.errors import UnsupportedGenerationError


def plan_prefill(layer: StructuredLayer, number: int, forward: LayerInputs) -> LayerPass | None:
    """Plan a layer before it runs, and record its FLOPs. Returns None if there is nothing to cut.

    Raises
    ------
    UnsupportedGenerationError
        If there is a window but the images have no grid.
    """
    tokens, columns = forward.tokens, forward.columns(number)
    if not any(columns.n_visual):
        return None
    structure = layer.structure
    has_rows = any(tokens.n_visual)
    tiles = None
    if structure.window is not None and has_rows:
        window = structure.window
        key = ("tiles", window, id(columns))
        tiles = forward.remember(key, columns, lambda: _tiles(window, columns, forward))
    kernel = PrefillKernel(layer, forward, tokens, columns, tiles) if tiles is not None or layer.idle else None
    narrows = has_rows and (structure.cuts_heads or structure.ffn < 1)
    rows = forward.remember("row split", tokens, lambda: _split(tokens)) if narrows else None
    if kernel is None and rows is None:
        return None
    _note_work(layer, number, forward, columns, tiles)
    return LayerPass(rows, kernel)


def _split(tokens: TokenMap) -> RowSplit:
    order = tokens.visual.flatten().to(torch.uint8).argsort(stable=True)
    others = len(order) - sum(tokens.n_visual)
    return RowSplit(order[others:], order[:others])


def _tiles(window: int, columns: TokenMap, forward: LayerInputs) -> Tiles:
    tokens = forward.tokens
    height, width = _common_grid(forward.prompt.pictures)
    layout = forward.prompt.layout
    cell = layout.cell.gather(1, tokens.slots - forward.past)
    images = max(layout.images)
    cells = rows_of_cells(cell, tokens.visual, images * height * width)
    tiling = tile_grid(height, width, window)
    queries, keys, near = lay_tiles(cells.unflatten(1, (images, -1)), tiling)
    earlier = (a - b for a, b in zip(columns.n_text, tokens.n_text, strict=True))
    n_text = add(tuple(earlier), layout.text_before)
    is_before = (columns.slots < forward.past) | (columns.slots < layout.last)
    text, known = kept_rows(columns.valid & ~columns.visual & is_before, n_text)
    return Tiles(queries, keys, near, text, known, n_text, layout.images, tiling.pairs)


def _common_grid(pictures: PromptPictures) -> Grid:
    """Return the grid that all images, tiles or frames of a batch have in common."""
    grids = {picture.grid for own in pictures.of_sample for picture in own}
    grid = grids.pop() if len(grids) == 1 else None
    if grid is None or pictures.mixed:
        raise UnsupportedGenerationError(
            "window attention needs images whose visual tokens all form the same grid: disable the window (window=none)"
        )
    return grid


def _note_work(
    layer: StructuredLayer, number: int, forward: LayerInputs, columns: TokenMap, tiles: Tiles | None
) -> None:
    """Record the FLOPs of the whole batch, and of each sample as if it ran alone."""
    tokens, shape = forward.tokens, forward.spec.decoder_shape
    cached = columns.width - tokens.width

    def flops(batch: int, rows: int, visual: int, text: int, text_columns: int, images: int, before: int) -> int:
        pairs = rows * (rows + cached)
        if tiles is not None:
            queries, keys = tiles.pairs
            pairs = text * (rows + cached) + images * queries * (keys + before)
        idle = text * (text_columns if layer.structure.renormalise else rows + cached)
        work = LayerWork(batch * rows - visual, visual, batch * pairs, batch * idle)
        return structured_layer_flops(shape, layer.structure, work)

    none = (0,) * len(tokens.n_text)
    images, before = (tiles.images, tiles.n_text) if tiles is not None else (none, none)
    samples = list(zip(tokens.n_text, tokens.n_visual, columns.n_text, images, before, strict=True))
    text, _, text_columns, n_images, n_before = map(max, zip(*samples, strict=True))
    together = flops(len(samples), tokens.width, sum(tokens.n_visual), text, text_columns, n_images, n_before)
    alone = tuple(flops(1, t + v, v, t, c, i, b) for t, v, c, i, b in samples)
    forward.recorder.layer_structured(number, together, alone)
